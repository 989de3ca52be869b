"""A server of two ingresses in this process, over a real store, which die at random.

Any of its parts may be a broken one: see `bugs`.
"""

import asyncio
import gc
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from serve_app.access.principal import Principal
from serve_app.chat.completion import Completer
from serve_app.chat.reply import create_replier
from serve_app.chat.turn import TurnLimits, TurnRunner
from serve_app.demo.bundled import BUNDLED_MODEL
from serve_app.http.app import create_http_app
from serve_app.http.drain import Drain
from serve_app.http.errors import error_body
from serve_app.http.service import HttpService
from serve_app.live.redis import LiveSettings, RedisLiveStore
from serve_app.live.service import LiveTurns
from serve_app.live.teller import Means
from serve_app.prompt.choose import build_prompts
from serve_app.sessions.redis import RedisSessionStore, StoreSettings
from serve_app.sessions.redis_catalogue import RedisSessionCatalogue
from serve_app.sessions.session import new_token
from tests.proof.digest import DigestModel, digest_tokenizer
from tests.proof.history.asking import TENANTS
from tests.proof.history.run import Site
from tests.proof.plugins import NAMES, LoggedPlugins
from tests.support.chat_fakes import FakeProbe, RawModel
from tests.support.fakes.gates import FakeGate
from tests.support.http_server import MortalServer

LIVE = LiveSettings(hold_s=0.5, here_s=0.5)
SESSIONS = StoreSettings(lease_s=1.0)
PERIOD_S = 0.1
LIMITS = TurnLimits(1024, lease_renewal_s=0.2)


@dataclass(frozen=True)
class Parts:
    """The classes of which an ingress is made."""

    sessions: type[RedisSessionStore] = RedisSessionStore
    catalogue: type[RedisSessionCatalogue] = RedisSessionCatalogue
    live: type[RedisLiveStore] = RedisLiveStore


@dataclass
class Ingress:
    """One that runs."""

    parts: Parts
    store_url: str
    gate: FakeGate
    effects: Path
    pause_s: float

    async def start(self) -> None:
        self._sessions = self.parts.sessions(self.store_url, SESSIONS)
        self._catalogue = self.parts.catalogue(self.store_url, SESSIONS)
        self._live_store = self.parts.live(self.store_url, LIVE)
        app = create_http_app(self._service())
        self._server = MortalServer()
        self.url = f"http://127.0.0.1:{await self._server.start(app)}"

    async def die(self) -> None:
        """Connections break, and nobody cleans live turns up."""
        await self._server.cut()
        await self.live.close()
        await self._server.end()
        await self._live_store.close()
        await self._sessions.close()
        await self._catalogue.close()

    def _service(self) -> HttpService:
        tokenizer = digest_tokenizer()
        prompts = build_prompts(tokenizer, BUNDLED_MODEL, "plugin")
        replier = create_replier(DigestModel(self.pause_s), LoggedPlugins(self.effects), prompts)
        drain = Drain()
        parts = self._live_store, self._sessions, replier, error_body
        means = Means(*parts, readmit=self.gate.resume)
        self.live = LiveTurns(means, LIMITS, drain, period_s=PERIOD_S)
        self.live.open()
        return HttpService(
            TurnRunner(self._sessions, replier, LIMITS),
            replier,
            FakeProbe(),
            ("digest",),
            LIMITS.max_model_len,
            frozenset(NAMES),
            tokenizer=tokenizer,
            completer=Completer(RawModel(), tokenizer),
            drain=drain,
            gate=self.gate,
            sessions=self._catalogue,
            live=self.live,
            requires_key=True,
        )


@dataclass
class World:
    """`ingresses` that run. `run` replaces one after the other."""

    parts: Parts
    store_url: str
    effects: Path
    pause_s: float = 0.002
    ingresses: list[Ingress] = field(default_factory=list)
    num_deaths: int = 0

    def __post_init__(self) -> None:
        owners = {name: f"{name} {new_token()}" for name in TENANTS}
        self._gate = FakeGate({name: Principal(owners[name], name) for name in TENANTS})
        self._random = random.Random(0)

    @property
    def site(self) -> Site:
        keys = {name: name for name in TENANTS}
        return Site(self._url, keys, self.store_url, self.effects)

    def _url(self) -> str:
        return self._random.choice(self.ingresses).url

    async def add(self) -> None:
        made = Ingress(self.parts, self.store_url, self._gate, self.effects, self.pause_s)
        await made.start()
        self.ingresses.append(made)

    async def kill_one(self) -> None:
        """The oldest one; another one replaces it."""
        await self.add()
        await self.ingresses.pop(0).die()
        self.num_deaths += 1

    async def kill_often(self, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            await self.kill_one()


@asynccontextmanager
async def running_world(world: World) -> AsyncIterator[World]:
    for _ in range(2):
        await world.add()
    try:
        yield world
    finally:
        for ingress in world.ingresses:
            await ingress.die()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        gc.collect()  # what deaths left lying about is this test's
