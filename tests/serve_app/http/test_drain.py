"""A drain: no new turn, the running ones end whole or with a typed error, and then it is over."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import inf

import httpx
import pytest

from serve_app.errors import DrainingError
from serve_app.http.app import create_http_app
from serve_app.http.drain import Drain
from serve_app.sessions.redis import RedisSessionStore
from serve_app.sessions.session import Turn, new_token
from serve_app.sessions.store import Lease
from tests.support.http_server import serving
from tests.support.site import Site, make_site


@dataclass
class Gate:
    """Stops each reply after its third token until `opened`."""

    opened: asyncio.Event = field(default_factory=asyncio.Event)
    num_waiting: int = 0

    async def wait(self, is_reply: bool, num_tokens: int) -> None:
        if is_reply and num_tokens == 3:
            self.num_waiting += 1
            await self.opened.wait()

    async def wait_for(self, num_waiting: int) -> None:
        async with asyncio.timeout(30):
            while self.num_waiting < num_waiting:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def client_of(site: Site) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        serving(create_http_app(site.service)) as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        yield client


async def test_new_turns_are_refused_and_running_ones_end_whole(site: Site) -> None:
    gate = Gate()
    site.model.wait = gate.wait
    async with client_of(site) as client:
        turns = [
            asyncio.create_task(client.post("/", json={"prompt": "hi", "stream": stream}))
            for stream in (True, False)
        ]
        await gate.wait_for(2)
        assert site.service.drain.begin() == 2
        for stream in (True, False):
            refused = await client.post("/", json={"prompt": "late", "stream": stream})
            assert refused.status_code == 503 and int(refused.headers["Retry-After"]) > 0
            assert refused.json()["error"]["code"] == "draining"
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/health")).status_code == 200
        finish = asyncio.create_task(site.service.drain.finish(60))
        gate.opened.set()
        streamed, unary = [await turn for turn in turns]
        assert await finish == 0
    assert unary.json()["status"] == 200
    assert json.loads(streamed.text.split("data: ")[-1])["status"] == 200


async def test_turns_that_outlast_the_drain_end_with_a_typed_error(site: Site) -> None:
    gate = Gate()
    site.model.wait = gate.wait
    async with client_of(site) as client:
        turns = [
            asyncio.create_task(client.post("/", json={"prompt": "hi", "stream": stream}))
            for stream in (True, False, True)
        ]
        await gate.wait_for(3)
        assert await site.service.drain.finish(0.1) == 3
        first, unary, second = [await turn for turn in turns]
    for response in (first, second):
        *deltas, last = response.text.removesuffix("\n\n").split("\n\n")
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "draining"
        assert all('"delta"' in delta for delta in deltas)
    assert (unary.status_code, unary.json()["error"]["code"]) == (503, "draining")
    assert site.model.num_running == 0 and site.model.num_aborted == 3


async def test_readers_of_a_live_turn_are_cut_off_by_the_drain(site: Site) -> None:
    """Without any end: the turn goes on elsewhere, and they come back for the rest."""
    gate, content = Gate(), bytearray()
    site.model.wait = gate.wait
    async with client_of(site) as client:
        uid = (await client.post("/v1/sessions", json={})).json()["id"]
        with pytest.raises(httpx.RemoteProtocolError):
            async with client.stream(
                "POST", f"/v1/sessions/{uid}/turns", json={"user": "hi", "stream": True}
            ) as response:
                async for chunk in response.aiter_bytes():
                    content += chunk
                    if b"event: delta" in content and not site.service.drain.is_draining:
                        await site.service.drain.finish(0)
    assert content.startswith(b"id: 0\nevent: turn\n") and b"event: error" not in content


async def test_a_cut_turn_leaves_its_session_free(site: Site, store: RedisSessionStore) -> None:
    uid = (await site.post()).json()["uid"]
    gate = Gate()
    site.model.wait = gate.wait
    turn = asyncio.create_task(site.post(uid=uid))
    await gate.wait_for(1)
    await site.service.drain.finish(0)
    assert (await turn).status_code == 503
    session = await store.load(uid, "demo")
    assert session is not None and len(session.turns) == 1
    again = make_site(store)  # another ingress
    async with again:
        history = (await again.post(prompt="next", uid=uid)).json()["history"]
    assert [query for query, _ in history] == ["你好", "next"]


@dataclass
class SlowCommits(RedisSessionStore):
    """Stops each commit until `opened`: before the server has it, or before its answer."""

    url: str
    is_sent: bool = True
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    num_waiting: int = 0

    def __post_init__(self) -> None:
        super().__init__(self.url)

    async def commit(self, lease: Lease, num_turns: int, turn: Turn, deadline: float = inf) -> Turn:
        stored = await super().commit(lease, num_turns, turn, deadline) if self.is_sent else None
        self.num_waiting += 1
        await self.opened.wait()
        return stored or await super().commit(lease, num_turns, turn, deadline)

    async def wait_for(self, num_waiting: int) -> None:
        async with asyncio.timeout(30):
            while self.num_waiting < num_waiting:
                await asyncio.sleep(0.01)


@pytest.fixture(params=[True, False], ids=["sent", "unsent"])
async def slow(store_url: str, request: pytest.FixtureRequest) -> AsyncIterator[SlowCommits]:
    store = SlowCommits(store_url, is_sent=request.param)
    yield store
    await store.close()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_turn_that_is_being_committed_ends_whole(slow: SlowCommits, stream: bool) -> None:
    """A client that read `draining` would repeat a turn that is stored."""
    async with make_site(slow) as site, client_of(site) as client:
        turn = asyncio.create_task(client.post("/", json={"prompt": "hi", "stream": stream}))
        await slow.wait_for(1)
        finish = asyncio.create_task(site.service.drain.finish(0))
        await asyncio.sleep(0.3)
        slow.opened.set()
        response = await turn
        await finish
    answer = json.loads(response.text.split("data: ")[-1])
    assert answer["status"] == 200
    session = await slow.load(answer["uid"], "demo")
    assert session is not None and [turn.user for turn in session.turns] == ["hi"]


async def test_a_commit_without_an_answer_is_not_called_a_drain(slow: SlowCommits) -> None:
    """Nobody knows whether it is stored; it is told before the server ends."""
    async with make_site(slow) as site, client_of(site) as client:
        turns = [
            asyncio.create_task(client.post("/", json={"prompt": "hi", "stream": stream}))
            for stream in (True, False)
        ]
        await slow.wait_for(2)
        assert await site.service.drain.finish(0) == 2
        assert site.service.drain.begin() == 0, "none runs after it"
        streamed, unary = [await turn for turn in turns]
    last = json.loads(streamed.text.split("data: ")[-1])
    for body in (last, unary.json()):
        assert body["error"]["code"] == "store_unavailable"


async def test_a_client_that_leaves_during_the_commit_ends_nothing(slow: SlowCommits) -> None:
    """Its turn is stored under its lease, as the client will see when it comes back."""
    key = {"Idempotency-Key": new_token()}
    async with make_site(slow) as site, client_of(site) as client:
        turn = asyncio.create_task(client.post("/", json={"prompt": "hi"}, headers=key))
        await slow.wait_for(1)
        turn.cancel()
        await asyncio.sleep(0.3)
        num_prompts = len(site.model.prompts)
        slow.opened.set()
        async with asyncio.timeout(30):
            while (
                again := await client.post("/", json={"prompt": "hi"}, headers=key)
            ).status_code == 409:
                await asyncio.sleep(0.01)
    assert [query for query, _ in again.json()["history"]] == ["hi"]
    assert len(site.model.prompts) == num_prompts, "the stored turn was replayed"


async def test_an_idle_server_is_drained_at_once(site: Site) -> None:
    async with client_of(site) as client:
        await client.get("/livez")  # its connection stays open
        async with asyncio.timeout(30):
            assert await site.service.drain.finish(3600) == 0


async def test_a_turn_between_check_and_start_is_refused_too() -> None:
    drain = Drain()
    drain.begin()
    with pytest.raises(DrainingError), drain.turn():
        raise AssertionError("it must not run")


async def test_readiness_ends_with_the_drain(site: Site) -> None:
    async with client_of(site) as client:
        assert (await client.get("/readyz")).status_code == 200
        site.service.drain.begin()
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/health")).status_code == 200
