"""Streams of a real engine that are given up: what they held is free, and others do not notice."""

import asyncio
import json
import random
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve_app.demo.bundled import BUNDLED_MODEL
from tests.e2e.endless_model import make_endless_model
from tests.proof.figures import check
from tests.proof.history.asking import Asker
from tests.proof.history.posting import Posting
from tests.proof.history.record import Act
from tests.proof.history.run import NO_LIMIT
from tests.proof.long.streams import asker_of
from tests.proof.long.watched import noted
from tests.proof.server import DigestProcess, digest_server
from tests.proof.test_forms import shown

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]
NUM_STREAMS, NUM_ABORTED = 100, 10
NUM_CALLS = 20
# Tokens of a stream, and of one that is aborted: which would be the last to end.
SHORT, LONG = 120, 10_000
FREE_S, CALL_S, IDLE_S = 1.0, 0.1, 1.0


@dataclass
class Streams:
    """Half of them are live turns, which are cancelled; the others are chat completions, whose
    client leaves. `aborted_at` says when, by the id in the engine's requests."""

    asker: Asker
    victims: frozenset[int] = frozenset()
    aborted_at: dict[str, float] = field(default_factory=dict)
    choice: random.Random = field(default_factory=lambda: random.Random(0))

    async def run(self) -> list[Any]:
        """What each tells: None of those that were aborted."""
        return list(await asyncio.gather(*(self._one(n) for n in range(NUM_STREAMS))))

    async def _one(self, number: int) -> Any:
        return await (self._turn(number) if number % 2 else self._chat(number))

    async def _turn(self, number: int) -> Any:
        uid = (await self.asker.ask("POST", "/v1/sessions", json={})).json()["id"]
        is_victim = number in self.victims
        act = Act("ann", "turn", f"key-{number:012}", f"你好 {number}", uid)
        body = {"user": act.user, "stream": True, **_sampling(is_victim)}
        path = f"/v1/sessions/{uid}/turns"
        posting = Posting(self.asker, act, path, body)
        cancelling = asyncio.create_task(self._cancel(posting)) if is_victim else None
        await posting.run(300)
        if cancelling is None:
            return shown(act)
        await cancelling
        assert act.state == "failed", act.state
        return None

    async def _cancel(self, posting: Posting) -> None:
        while not posting.turn:
            await asyncio.sleep(0.01)
        await asyncio.sleep(self.choice.uniform(0, 2))
        self.aborted_at[posting.turn] = time.monotonic()
        path = f"{posting.path}/{posting.turn}/cancel"
        await self.asker.ask("POST", path, json={"keep": False})

    async def _chat(self, number: int) -> Any:
        is_victim = number in self.victims
        body = {
            "messages": [{"role": "user", "content": f"你好 {number}"}],
            "seed": number,
            "stream": True,
            **_sampling(is_victim),
        }
        headers = {"Authorization": f"Bearer {self.asker.api_key}"}
        url = f"{self.asker.url()}/v1/chat/completions"
        leave_at = 1e9
        async with self.asker.http.stream(
            "POST", url, json=body, headers=headers, timeout=300
        ) as response:
            assert response.status_code == 200, await response.aread()
            chunks: list[Mapping[str, Any]] = []
            lines = response.aiter_lines()
            with suppress(TimeoutError):
                while True:
                    async with asyncio.timeout(max(0.0, leave_at - time.monotonic())):
                        line = await anext(lines, "data: [DONE]")
                    if line == "data: [DONE]":
                        break
                    if line.startswith("data: "):
                        chunks.append(json.loads(line.removeprefix("data: ")))
                        if is_victim and len(chunks) == 1:
                            leave_at = time.monotonic() + self.choice.uniform(0, 2)
            if is_victim:
                name = str(chunks[0]["id"]).removeprefix("chatcmpl-")
                self.aborted_at[name] = time.monotonic()
                return None
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
        return ["".join(d.get(name) or "" for d in deltas) for name in ("reasoning", "content")]


def _sampling(is_victim: bool) -> dict[str, Any]:
    """Half of the tokens are thoughts; the model never ends by itself."""
    length = LONG if is_victim else SHORT
    return {"temperature": 1.0, "plugins": [], "max_completion_tokens": length}


async def _idle_after(server: DigestProcess) -> float:
    """Seconds until the engine holds nothing."""
    began = time.monotonic()
    while True:
        stats = await asyncio.to_thread(server.stats)
        if not stats["running"] + stats["waiting"] and stats["free_blocks"] == stats["num_blocks"]:
            return time.monotonic() - began
        assert time.monotonic() < began + 30, stats
        await asyncio.sleep(0.02)


async def _aborted(server: DigestProcess) -> None:
    victims = frozenset(random.Random(1).sample(range(NUM_STREAMS), NUM_ABORTED))
    async with httpx.AsyncClient(limits=NO_LIMIT, trust_env=False) as http:
        streams = Streams(asker_of(server, http), victims)
        told = await streams.run()
        idle_s = await _idle_after(server)
        alone = await Streams(asker_of(server, http)).run()
    freed = {name.rsplit("-", 2)[0]: at for name, at in noted(server.effects, "freed")}
    after = [freed[name] - at for name, at in streams.aborted_at.items() if name in freed]
    whole = [n for n in range(NUM_STREAMS) if n not in victims]
    num_exact = sum(told[n] == alone[n] for n in whole)
    text = f"{num_exact} exact; {len(after)} freed, the slowest after {max(after, default=0):.2f} s"
    is_free = len(after) == NUM_ABORTED and max(after) <= FREE_S and idle_s <= IDLE_S
    holds = num_exact == len(whole) == NUM_STREAMS - NUM_ABORTED and is_free
    check("aborts", f"{text}; all blocks free {idle_s:.2f} s after the last stream", holds)


def test_ten_of_a_hundred_streams_are_aborted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_endless_model(tmp_path / "model")
    with digest_server(tmp_path, monkeypatch, engine=model) as server:
        asyncio.run(_aborted(server))


async def _call_and_cancel(server: DigestProcess, asker: Asker, number: int) -> float | None:
    """Seconds from the cancel of a turn to the end of its call; None if it made no call."""
    uid = (await asker.ask("POST", "/v1/sessions", json={})).json()["id"]
    act = Act("ann", "drop", f"call-{number:012}", f"计算 {number}+3", uid)
    body = {"user": act.user, "stream": True, "temperature": 0.1, "plugins": ["calculator"]}
    posting = Posting(asker, act, f"/v1/sessions/{uid}/turns", body)
    num_begun = len(noted(server.effects, "begun"))
    running = asyncio.create_task(posting.run(60))
    while len(noted(server.effects, "begun")) == num_begun:
        if running.done():
            return None
        await asyncio.sleep(0.02)
    await asyncio.sleep(random.uniform(0, 0.5))
    cancelled_at = time.monotonic()
    path = f"{posting.path}/{posting.turn}/cancel"
    await asker.ask("POST", path, json={"keep": False})
    await running
    return noted(server.effects, "ended")[-1][1] - cancelled_at


async def _calls(server: DigestProcess) -> None:
    async with httpx.AsyncClient(limits=NO_LIMIT, trust_env=False) as http:
        asker = asker_of(server, http)
        found = [await _call_and_cancel(server, asker, n) for n in range(NUM_CALLS)]
    took = sorted(seconds for seconds in found if seconds is not None)
    assert len(took) >= NUM_CALLS // 2, "the model called too seldom"
    text = f"{len(took)} calls: median {took[len(took) // 2] * 1000:.0f} ms"
    check("plugin-end", f"{text}, longest {took[-1] * 1000:.0f} ms", took[-1] <= CALL_S)


def test_the_call_of_a_turn_that_is_cancelled_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with digest_server(tmp_path, monkeypatch, engine=BUNDLED_MODEL) as server:
        asyncio.run(_calls(server))
