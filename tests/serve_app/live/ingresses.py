"""Several ingresses in one process over one real store, and how they die."""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from redis.asyncio import Redis

from moss_tp.sampling_params import SamplingParams
from serve_app.chat.reply import create_replier
from serve_app.chat.turn import MakeUp, TurnLimits, TurnRequest
from serve_app.live.crew import Stop
from serve_app.live.event import LiveEvent
from serve_app.live.redis import LiveSettings, RedisLiveStore
from serve_app.live.service import LiveTurns, Started
from serve_app.live.teller import Means, Readmit
from serve_app.moderation.hook import Moderation
from serve_app.prompt.builder import PromptBuilder
from serve_app.sessions.catalogue import SessionChanges
from serve_app.sessions.images import RedisImageStore
from serve_app.sessions.keys import session_keys
from serve_app.sessions.redis import RedisSessionStore
from serve_app.sessions.redis_catalogue import RedisSessionCatalogue
from serve_app.sessions.session import Session
from serve_app.watch import Watch, unwatched
from tests.support.chat_fakes import CharCodec, FakeModel, FakePlugins
from tests.support.waiting import PATIENCE_S, POLL_S, until

OWNER = "ann"
PARAMS = SamplingParams(max_tokens=2**31)
# Quick enough for a test, and slow enough for a busy machine.
SETTINGS = LiveSettings(hold_s=1.0, here_s=10)
PERIOD_S = 0.1


def describe(error: Exception) -> Mapping[str, Any]:
    return {"error": {"message": str(error), "type": type(error).__name__}}


@dataclass
class Ingress:
    """A LiveTurns with fakes and with clients of the store of its own."""

    live: LiveTurns
    model: FakeModel
    plugins: FakePlugins
    store: RedisLiveStore
    sessions: RedisSessionStore
    images: RedisImageStore

    def request(self, uid: str, user: str = "你好", **changes: Any) -> TurnRequest:
        request = TurnRequest(OWNER, user, user, PARAMS, frozenset({"calculator"}), 2048, uid)
        return replace(request, **changes)

    async def start(self, uid: str, user: str = "你好", **changes: Any) -> Started:
        return await self.live.start(self.request(uid, user, **changes))

    async def read(self, started: Started, after: int = -1) -> list[LiveEvent]:
        """All events up to the terminal one."""
        events = await self.live.follow(started.uid, OWNER, started.id, after)
        assert events is not None
        async with aclosing(events):
            return [event async for event in events]

    async def cancel(self, started: Started, *, keep: bool = False) -> LiveEvent | None:
        return await self.live.cancel(started.uid, OWNER, started.id, keep=keep)

    async def is_known(self) -> None:
        """Returns when other ingresses can see that it is there."""
        await until(lambda: self.live._patrol.num_others is not None)

    async def die(self) -> None:
        """As a process does that is killed: nothing is cleaned up in the store."""
        await self.live.close()

    async def close(self) -> None:
        await self.live.close()
        await self.store.close()
        await self.sessions.close()
        await self.images.close()


@dataclass
class Ingresses:
    """Ingresses of one server."""

    url: str
    settings: LiveSettings = SETTINGS
    period_s: float = PERIOD_S
    all: list[Ingress] = field(default_factory=list)
    limits: TurnLimits = field(default_factory=lambda: TurnLimits(4096))

    def add(
        self,
        model: FakeModel | None = None,
        plugins: FakePlugins | None = None,
        store: RedisLiveStore | None = None,
        stop: Stop | None = None,
        moderation: Moderation | None = None,
        watch: Watch = unwatched,
        make_up: MakeUp | None = None,
        readmit: Readmit | None = None,
    ) -> Ingress:
        model, plugins = model or FakeModel(), plugins or FakePlugins()
        images = RedisImageStore(self.url)
        prompts = PromptBuilder(CharCodec(), "Be brief.\n")
        replier = create_replier(
            model, plugins, prompts, moderation=moderation, watch=watch, pictures=images
        )
        store = store or RedisLiveStore(self.url, self.settings)
        sessions = RedisSessionStore(self.url)
        means = Means(store, sessions, replier, describe, make_up, readmit)
        live = LiveTurns(means, self.limits, stop, self.period_s)
        live.open()
        self.all.append(Ingress(live, model, plugins, store, sessions, images))
        return self.all[-1]

    def apart(self, number: int) -> "Ingresses":
        """Others on the same server, in database `number`: neither takes up a turn of the other."""
        return Ingresses(f"{self.url}?db={number}", self.settings)

    async def session(self) -> str:
        """The uid of a new session."""
        catalogue = RedisSessionCatalogue(self.url)
        made = await catalogue.create(OWNER, SessionChanges())
        await catalogue.close()
        return made.uid

    async def only_turn(self, uid: str) -> Started | None:
        """The session's only live turn, if it has one."""
        (pattern,) = session_keys(uid, "live:*")
        async with Redis.from_url(self.url) as redis:
            keys = [key.decode().split(":live:")[1] async for key in redis.scan_iter(pattern)]
        return next((Started(uid, key) for key in keys if ":" not in key), None)

    async def load(self, uid: str) -> Session:
        sessions = RedisSessionStore(self.url)
        session = await sessions.load(uid, OWNER)
        await sessions.close()
        assert session is not None
        return session

    async def aclose(self) -> None:
        await asyncio.gather(*(ingress.close() for ingress in self.all))


async def begun(ingress: Ingress) -> None:
    """Returns when its model has a request."""
    await until(lambda: bool(ingress.model.requests))


async def stored(started: Started, num_tokens: int) -> None:
    """Returns when that many tokens of the reply are stored, also those that are held back."""
    assert started.teller is not None
    pen = started.teller.pen
    async with asyncio.timeout(PATIENCE_S):
        while num_told(pen.tail.events) < num_tokens:
            await pen.flush()
            await asyncio.sleep(POLL_S)


def num_told(events: list[LiveEvent]) -> int:
    """How many tokens of a reply were told, -1 before it began."""
    if not any(event.kind == "thoughts" for event in events):
        return -1
    return sum(len(event.telling.token_ids) for event in events if event.kind == "delta")


def text_of(events: list[LiveEvent]) -> str:
    return "".join(event.telling.text for event in events)


def shape_of(events: list[LiveEvent]) -> list[tuple[str, Any]]:
    """What events say, with the deltas in one: where a reply is cut may differ."""
    shape: list[tuple[str, Any]] = []
    for event in events:
        data = dict(event.data)
        data.pop("ms", None)
        if event.kind == "delta" and shape and shape[-1][0] == "delta":
            shape[-1] = ("delta", shape[-1][1] + data["text"])
        elif event.kind == "delta":
            shape.append(("delta", data["text"]))
        else:
            shape.append((event.kind, data))
    return shape
