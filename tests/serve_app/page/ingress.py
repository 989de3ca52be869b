"""The real HTTP application on a real port over a real store, which dies and comes back."""

import asyncio
from dataclasses import dataclass, field

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
from tests.support.http_server import MortalServer

LIVE = LiveSettings(hold_s=0.5, here_s=0.5)
PERIOD_S = 0.1
LIMITS = TurnLimits(60_000, lease_renewal_s=0.2)
# Until a server that was killed is there again.
AWAY_S = 0.3


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
        self._server = MortalServer()
        self.port = await self._server.start(app, self.port)

    async def die(self) -> None:
        """Connections break, and nobody cleans live turns up."""
        await self._server.cut()
        await self._live.close()
        await self._server.end()
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
