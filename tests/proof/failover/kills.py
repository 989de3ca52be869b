"""Streams of a real engine through the deaths of its groups, beside the same undisturbed."""

import asyncio
import json
import random
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.proof.failover.timeline import Timeline
from tests.proof.long.watched import POISON
from tests.proof.server import DigestProcess

READ_S = 120.0
TOKENS = 1000
# Ways in which tokens may be chosen; the model tells letters without end.
GREEDY = {"temperature": 0, "logprobs": True, "top_logprobs": 2}
SEEDED = {"temperature": 1.0, "logprobs": True, "presence_penalty": 0.5, "frequency_penalty": 0.1}
STOPPED = {"temperature": 1.0, "stop": ["qx", "zzz", "jk"]}
CHOICES = {"temperature": 0.9, "n": 2}
KINDS: dict[str, Mapping[str, Any]] = {
    "greedy": GREEDY,
    "seeded": SEEDED,
    "stop strings": STOPPED,
    "two choices": CHOICES,
}
Told = Mapping[str, Any]


@dataclass
class Streams:
    """`timelines` are by the text of the user, which is another for each stream."""

    server: DigestProcess
    http: httpx.AsyncClient
    timelines: dict[str, Timeline] = field(default_factory=dict)

    @property
    def longest_s(self) -> float:
        """The longest wait of all for more."""
        return max(each.longest_s for each in self.timelines.values())

    def pause_s(self, undisturbed: "Streams", at: float) -> float:
        """See `Timeline.pause_s`: the longest of all streams."""
        return max(
            timeline.pause_s(undisturbed.timelines[user], at)
            for user, timeline in self.timelines.items()
        )

    async def all(self, num_each: int = 2, num_turns: int = 2) -> list[Told]:
        """What each of them tells: chat completions of every kind, and turns of sessions."""
        chats = [self._chat(kind, n) for kind in KINDS for n in range(num_each)]
        turns = [self._turn(number) for number in range(num_turns)]
        return list(await asyncio.gather(*chats, *turns))

    async def _chat(self, kind: str, number: int) -> Told:
        """The thoughts and the reply of each choice, with their logprobs, and the usage."""
        user = f"讲故事 {kind} {number}"
        body = {
            "messages": [{"role": "user", "content": user}],
            "seed": number,
            "max_completion_tokens": TOKENS,
            "plugins": [],
            "stream": True,
            "stream_options": {"include_usage": True},
            **KINDS[kind],
        }
        told: dict[str, Any] = {"kind": kind}
        for chunk in await self.events("/v1/chat/completions", body, user):
            if usage := chunk.get("usage"):  # how much was cached depends on what ran before
                told["usage"] = usage["prompt_tokens"], usage["completion_tokens"]
            if "error" in chunk:
                told["error"] = chunk["error"]
            for choice in chunk.get("choices", ()):
                _join(told, choice)
        return told

    async def _turn(self, number: int) -> Told:
        """A turn of two passes, as its session has it."""
        made = await self.http.post(f"{self.server.url}/v1/sessions", json={}, headers=self._key)
        user = f"讲故事 {number}"
        body = {
            "user": user,
            "seed": number,
            "max_completion_tokens": TOKENS,
            "plugins": [],
            "stream": True,
        }
        events = await self.events(f"/v1/sessions/{made.json()['id']}/turns", body, user)
        deltas = "".join(str(each.get("text", "")) for each in events[:-1])
        turn = events[-1].get("turn", events[-1])
        told = ("user", "thoughts", "reply", "seed", "finish_reason", "error")
        return {"kind": "turn", "deltas": deltas, **{k: turn[k] for k in told if k in turn}}

    async def events(self, path: str, body: Mapping[str, Any], user: str) -> list[dict[str, Any]]:
        """The data of a stream that ends in order."""
        found: list[dict[str, Any]] = []
        times = [time.monotonic()]
        async with self.http.stream(
            "POST", self.server.url + path, json=body, headers=self._key, timeout=READ_S
        ) as response:
            assert response.status_code == 200, await response.aread()
            async for line in response.aiter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    found.append(json.loads(line.removeprefix("data: ")))
                    if _has_text(found[-1]):
                        times.append(time.monotonic())
        self.timelines[user] = Timeline([*times, time.monotonic()])
        return found

    @property
    def _key(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.server.api_keys['ann']}"}


async def poisoned(streams: Streams) -> Told:
    """What the client of a request is told that ends each group that computes it."""
    token, bias = POISON
    body = {
        "messages": [{"role": "user", "content": "毒"}],
        "logit_bias": {str(token): bias},
        "plugins": [],
        "stream": True,
    }
    return (await streams.events("/v1/chat/completions", body, "毒"))[-1]


def _has_text(event: Mapping[str, Any]) -> bool:
    """Whether an event of a chat or of a turn tells some of the thoughts or of the reply."""
    deltas = [choice["delta"] for choice in event.get("choices", ())]
    texts = (delta.get("reasoning") or delta.get("content") for delta in deltas)
    return bool(event.get("text")) or any(texts)


def _join(told: dict[Any, Any], choice: Mapping[str, Any]) -> None:
    """Adds a chunk's part of one choice."""
    own = told.setdefault(choice["index"], {"reasoning": "", "content": "", "logprobs": []})
    for name in ("reasoning", "content"):
        own[name] += choice["delta"].get(name) or ""
    own["logprobs"] += (choice.get("logprobs") or {}).get("content") or []
    own["finish_reason"] = choice.get("finish_reason") or own.get("finish_reason")


@dataclass
class Kills:
    """Each at a random time of a round; `faults` say what it has changed, `pauses_s` how long the
    readers of a round had to wait for more because of it, at most."""

    server: DigestProcess
    num_groups: int
    seed: int
    faults: list[str] = field(default_factory=list)
    pauses_s: list[float] = field(default_factory=list)
    num_rounds: int = 0

    @property
    def num_kills(self) -> int:
        return len(self.pauses_s)

    async def rounds(self, http: httpx.AsyncClient, num: int, victim: str = "replica") -> None:
        """The same streams again and again, until `num` groups have died at random times of them.

        A round in which the streams end first counts for nothing.
        """
        choice = random.Random(self.seed)
        alone = await Streams(self.server, http).all()
        undisturbed = Streams(self.server, http)
        began = time.monotonic()
        again = await undisturbed.all()
        assert differences(alone, again) == [], "they depend on more than a kill"
        alone_s = time.monotonic() - began
        while self.num_kills < num:
            self.num_rounds += 1
            assert self.num_rounds <= 2 * num + 4, "the streams end before the kills"
            streams = Streams(self.server, http)
            running = asyncio.create_task(streams.all())
            await asyncio.sleep(choice.uniform(0, alone_s))
            at = time.monotonic()
            is_killed = not running.done() and bool(self.server.kill(victim, choice))
            told = await running
            if is_killed:
                self.pauses_s.append(streams.pause_s(undisturbed, at))
            lost = differences(alone, told)
            self.faults += [f"round {self.num_rounds}: {each}" for each in lost]
            await self._all_up(http)

    async def _all_up(self, http: httpx.AsyncClient) -> None:
        """Waits until as many groups serve as before."""
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with suppress(httpx.HTTPError):
                body = (await http.get(f"{self.server.url}/health")).json()
                if sum(group["healthy"] for group in body["groups"]) >= self.num_groups:
                    return
            await asyncio.sleep(0.2)
        raise AssertionError("a group was not replaced")


def differences(whole: list[Told], told: list[Told]) -> list[str]:
    return [
        f"{one['kind']}: {name} is {other.get(name)!r} and not {value!r}"
        for one, other in zip(whole, told, strict=True)
        for name, value in {**dict.fromkeys(other), **one}.items()
        if other.get(name) != value
    ]
