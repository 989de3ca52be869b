"""Two tenants of one server, and many clients of one chat, over HTTP."""

import asyncio
import logging
import random
import re
import statistics
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from serve_app.access.principal import Principal
from serve_app.sessions.redis import RedisSessionStore
from serve_app.sessions.session import new_token
from tests.proof.figures import check, measured
from tests.serve_app.http.clients import assert_error, client_of
from tests.serve_app.sessions.turns import append
from tests.support.fakes.gates import ADMIN, ANN, FakeGate
from tests.support.site import Site

chaos = pytest.mark.chaos


@pytest.fixture
def gate() -> FakeGate:
    """Owners that are new in each test, since the store is not."""
    return FakeGate({key: Principal(f"{key} {new_token()}", key) for key in ("ann", "bob")})


@pytest.fixture
async def clients(site: Site, gate: FakeGate) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
    ann, bob = client_of(site, gate=gate), client_of(site, gate=gate)
    async with ann, bob:
        ann.headers["apikey"], bob.headers["apikey"] = "ann", "bob"
        yield {"ann": ann, "bob": bob}


def echo_canaries(prompt: str) -> str:
    """A model that tells everything it was told."""
    return f" {' '.join(re.findall('canary-[a-z]+-[0-9]+', prompt))}<eom>"


@dataclass
class Tenant:
    """A client that puts a canary into everything it sends, and tries the other one's ids."""

    name: str
    client: httpx.AsyncClient
    foreign: "Tenant | None" = None
    uids: list[str] = field(default_factory=lambda: [new_token()])
    turns: list[str] = field(default_factory=lambda: [new_token()])
    keys: list[str] = field(default_factory=lambda: [new_token()])
    heard: list[str] = field(default_factory=list)
    num_sent: int = 0

    def canary(self) -> str:
        self.num_sent += 1
        return f"canary-{self.name}-{self.num_sent}"

    def any_of(self, kind: str) -> str:
        """An id of its own, or of the other one."""
        assert self.foreign is not None
        return str(random.choice(getattr(random.choice([self, self.foreign]), kind)))

    async def act(self) -> None:
        uid, turn = self.any_of("uids"), self.any_of("turns")
        session = f"/v1/sessions/{uid}"
        chat = {"prompt": self.canary(), "uid": uid}
        steps: list[tuple[str, str, dict[str, Any] | None]] = [
            ("POST", "/", chat),
            ("POST", "/", {**chat, "stream": True}),
            ("POST", "/v1/sessions", {"title": self.canary()}),
            ("PATCH", session, {"title": self.canary(), "active_turn": turn}),
            ("PUT", f"{session}/turns/{turn}/feedback", {"comment": self.canary()}),
            ("GET", f"{session}?all=1", None),
            ("GET", f"{session}/turns/{turn}", None),
            ("GET", f"/v1/sessions?after={random.choice(['', uid])}", None),
            ("DELETE", session, None),
        ]
        method, path, body = random.choices(steps, [5, 2, 2, 2, 2, 3, 2, 2, 1])[0]
        self.keys.append(new_token())
        headers = {"Idempotency-Key": self.any_of("keys")} if random.random() < 0.3 else {}
        response = await self.client.request(method, path, json=body, headers=headers)
        assert response.status_code < 500, response.text
        self.heard.append(f"{response.headers} {response.text}")
        self.learn(response)

    def learn(self, response: httpx.Response) -> None:
        self.uids += re.findall(r'"(?:uid|id)":\s?"([0-9a-f]{32})"', response.text)[:1]
        self.turns += re.findall(r'"active_turn":\s?"([0-9a-f]{32})"', response.text)


@pytest.mark.parametrize("num_steps", [150, pytest.param(2000, marks=chaos)])
async def test_no_canary_of_one_tenant_reaches_the_other(
    site: Site,
    clients: dict[str, httpx.AsyncClient],
    store_url: str,
    caplog: pytest.LogCaptureFixture,
    num_steps: int,
) -> None:
    site.model.reply = echo_canaries
    ann, bob = (Tenant(name, client) for name, client in clients.items())
    ann.foreign, bob.foreign = bob, ann
    with caplog.at_level(logging.DEBUG):
        for _ in range(num_steps):
            await asyncio.gather(ann.act(), bob.act(), ann.act())
    async with Redis.from_url(store_url) as raw:
        keys = [key async for key in raw.scan_iter()]
    with measured("canaries") as texts:
        for tenant, other in ((ann, bob), (bob, ann)):
            heard = "\n".join(tenant.heard)
            assert heard.count(f"canary-{tenant.name}") > num_steps / 10, "it does hear its own"
            assert f"canary-{other.name}" not in heard and f"{other.name} " not in heard
        assert "canary" not in caplog.text
        assert keys and not any(b"canary" in key for key in keys)
        num_heard = len(ann.heard) + len(bob.heard)
        texts.append(f"0 in {num_heard} responses, {len(keys)} keys and the logs")


@pytest.mark.parametrize(
    ("num_pairs", "limit"), [(200, 0.2), pytest.param(2000, 0.05, marks=chaos)]
)
async def test_a_foreign_chat_takes_as_long_as_one_that_is_not_there(
    clients: dict[str, httpx.AsyncClient],
    gate: FakeGate,
    store: RedisSessionStore,
    num_pairs: int,
    limit: float,
) -> None:
    uid = new_token()
    parent = ""
    for _ in range(50):  # reading it takes its owner much longer
        parent = (await append(store, uid, parent, gate.principals["ann"].owner, "x" * 2000)).id

    async def seconds(client: httpx.AsyncClient, session_id: str) -> float:
        began = time.perf_counter()
        await client.get(f"/v1/sessions/{session_id}")
        return time.perf_counter() - began

    foreign, unknown = list[float](), list[float]()
    for number in range(num_pairs):
        for is_foreign in (number % 2 == 0, number % 2 == 1):
            taken = await seconds(clients["bob"], uid if is_foreign else new_token())
            (foreign if is_foreign else unknown).append(taken)
    own = [await seconds(clients["ann"], uid) for _ in range(20)]
    difference = statistics.median(foreign) / statistics.median(unknown) - 1
    told = f"{difference:+.2%} of {statistics.median(unknown) * 1000:.2f} ms in the median"
    check("timing", f"{told}, {num_pairs} pairs", abs(difference) < limit)
    assert statistics.median(own) > 1.5 * statistics.median(unknown), "a look at it would show"


@pytest.mark.parametrize(("num_turns", "limit_s"), [(2, 5.0), pytest.param(50, 0.1, marks=chaos)])
async def test_of_16_clients_one_has_the_turn_and_the_others_know_soon(
    site: Site, clients: dict[str, httpx.AsyncClient], num_turns: int, limit_s: float
) -> None:
    client = clients["ann"]
    uid = (await client.post("/", json={"prompt": "一"})).json()["uid"]
    refused: list[float] = []
    go_on = asyncio.Event()

    async def wait(is_reply: bool, num_tokens: int) -> None:
        await go_on.wait()

    site.model.wait = wait

    async def post() -> int:
        began = time.perf_counter()
        response = await client.post("/", json={"prompt": "二", "uid": uid})
        if response.status_code == 409:
            refused.append(time.perf_counter() - began)
            assert response.json()["error"]["code"] == "session_busy"
            assert int(response.headers["Retry-After"]) >= 1
            if len(refused) % 15 == 0:
                go_on.set()
        return response.status_code

    for _ in range(num_turns):
        go_on.clear()
        statuses = await asyncio.gather(*(post() for _ in range(16)))
        assert sorted(statuses) == [200, *[409] * 15]
    p95 = statistics.quantiles(refused, n=20)[-1]  # the rest is the machine's
    told = f"{num_turns} turns, one winner each; a 409 within {p95 * 1000:.0f} ms (p95)"
    check("one-winner", f"{told}, {max(refused) * 1000:.0f} ms at most", p95 < limit_s)
    turns = (await client.get(f"/v1/sessions/{uid}")).json()["turns"]
    assert len(turns) == num_turns + 1
    # Of a long chat the oldest turns no longer fit into the prompt, whose turns a reply counts.
    told_turns = [f"turn {n + 1}" for n in range(min(num_turns + 1, 10))]
    assert [turn["reply"] for turn in turns[: len(told_turns)]] == told_turns


@pytest.mark.parametrize("has_keys", [False, True])
async def test_a_foreign_turn_is_not_made_again(site: Site, has_keys: bool) -> None:
    """Of two browsers without keys, and of an administrator, who is another owner."""
    gate = {"gate": FakeGate()} if has_keys else {}
    async with client_of(site, **gate) as owner, client_of(site, **gate) as other:
        for client, key in ((owner, ANN), (other, ADMIN)):
            await client.post("/v1/login", json={"key": key} if has_keys else {})
        session = (await owner.post("/v1/sessions", json={})).json()["id"]
        turns = f"/v1/sessions/{session}/turns"
        turn = (await owner.post(turns, json={"user": "hi"})).json()["turn"]["id"]
        foreign = await other.post(f"{turns}/{turn}/replay")
        unknown = await other.post(f"/v1/sessions/{'0' * 32}/turns/{turn}/replay")
        for answer in (foreign, unknown):
            assert_error(answer, 404, "session_not_found")
        assert foreign.json() == unknown.json()
        if not has_keys:  # the control
            own = await owner.post(f"{turns}/{turn}/replay")
            assert own.json() == {"differences": {}, "changed": [], "reply": "turn 1"}, own.text
