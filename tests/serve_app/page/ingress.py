"""The real HTTP application on a real port over a real store, which dies and comes back."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from plugins_svc.registry import PLUGIN_NAMES
from serve_app.access.gate import Gate
from serve_app.access.open_gate import OpenGate
from serve_app.chat.completion import Completer
from serve_app.chat.reply import create_replier
from serve_app.chat.turn import TurnLimits, TurnRunner
from serve_app.http.app import create_http_app
from serve_app.http.drain import Drain
from serve_app.http.errors import error_body
from serve_app.http.service import HttpService
from serve_app.live.redis import LiveSettings, RedisLiveStore
from serve_app.live.service import LiveTurns
from serve_app.live.teller import Means
from serve_app.prompt.builder import PromptBuilder
from serve_app.rendering.renderer import Renderer
from serve_app.sessions.images import RedisImageStore
from serve_app.sessions.redis import RedisSessionStore
from serve_app.sessions.redis_catalogue import RedisSessionCatalogue
from tests.serve_app.page.script import Pace, ScriptedModel, ScriptedPlugins
from tests.support.chat_fakes import CharCodec, FakeProbe, RawModel

LIVE = LiveSettings(hold_s=0.5, here_s=0.5)
PERIOD_S = 0.1
LIMITS = TurnLimits(60_000, lease_renewal_s=0.2)
# Until a server that was killed is there again.
AWAY_S = 0.3


class _Server(uvicorn.Server):
    """Installs no signal handlers; pytest has its own."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass
class Ingress:
    """A server on one port of loopback, as often as it is killed."""

    store_url: str
    renderer: Renderer
    own_gate: Gate | None = None  # else it needs no keys
    prefix: str = ""
    port: int = 0
    pace: Pace = field(default_factory=Pace)
    plugins: ScriptedPlugins = field(default_factory=ScriptedPlugins)

    def __post_init__(self) -> None:
        self.model = ScriptedModel(self.pace)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.origin}{self.prefix}"

    async def start(self) -> None:
        app = create_http_app(self._service())
        if self.prefix:
            app = Starlette(routes=[Mount(self.prefix, app)])
        config = uvicorn.Config(
            app, "127.0.0.1", self.port, ws="none", lifespan="off", log_level="critical"
        )
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve())
        while not self._server.started:
            assert not self._task.done()
            await asyncio.sleep(0.01)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]

    async def die(self) -> None:
        """Connections break, and nobody cleans live turns up."""
        state = self._server.server_state
        for listening in self._server.servers:
            listening.close()
        for _ in range(3):  # a connection may have been accepted just now
            for connection in [*state.connections]:
                connection.transport.abort()
            await asyncio.sleep(0)
        await self._live.close()
        for task in [*state.tasks]:
            task.cancel()
        self._server.should_exit = self._server.force_exit = True
        await self._task
        await asyncio.gather(*state.tasks, return_exceptions=True)
        for client in (self._live_store, self._sessions, self._catalogue, self._images):
            await client.close()
        if self.own_gate is None:
            await self._gate.close()

    async def come_back(self) -> None:
        """It is killed, and another one is there in its place a moment later."""
        await self.die()
        await asyncio.sleep(AWAY_S)
        await self.start()

    def _service(self) -> HttpService:
        self._sessions = RedisSessionStore(self.store_url)
        self._catalogue = RedisSessionCatalogue(self.store_url)
        self._live_store = RedisLiveStore(self.store_url, LIVE)
        self._images = RedisImageStore(self.store_url)
        self._gate = self.own_gate or OpenGate(self.store_url)
        prompts = PromptBuilder(CharCodec(), "Be brief.\n")
        replier = create_replier(self.model, self.plugins, prompts, pictures=self._images)
        drain = Drain()
        means = Means(self._live_store, self._sessions, replier, error_body)
        self._live = LiveTurns(means, LIMITS, drain, period_s=PERIOD_S)
        self._live.open()
        return HttpService(
            TurnRunner(self._sessions, replier, LIMITS),
            replier,
            FakeProbe(),
            ("moss-scripted",),
            LIMITS.max_model_len,
            frozenset(PLUGIN_NAMES),
            tokenizer=CharCodec(),
            completer=Completer(RawModel(), CharCodec()),
            drain=drain,
            gate=self._gate,
            sessions=self._catalogue,
            live=self._live,
            images=self._images,
            requires_key=self.own_gate is not None,
            renderer=self.renderer,
        )
