"""The HTTP application over fakes and a real store, and a client of it."""

import json
from dataclasses import dataclass
from typing import Any, Self

import httpx

from serve_app.access.open_gate import OpenGate
from serve_app.chat.completion import Completer
from serve_app.chat.reply import create_replier
from serve_app.chat.turn import TurnLimits, TurnRunner
from serve_app.http.app import create_http_app
from serve_app.http.drain import Drain
from serve_app.http.errors import error_body
from serve_app.http.service import HttpService
from serve_app.live.redis import RedisLiveStore
from serve_app.live.service import LiveTurns
from serve_app.live.teller import Means
from serve_app.observe.metrics import ServerMetrics
from serve_app.prompt.builder import PromptBuilder
from serve_app.sessions.images import RedisImageStore
from serve_app.sessions.redis import RedisSessionStore
from serve_app.sessions.redis_catalogue import RedisSessionCatalogue
from tests.support.chat_fakes import CharCodec, FakeModel, FakePlugins, FakeProbe, RawModel


@dataclass
class Site:
    """An application over fakes, and a client of it."""

    service: HttpService
    model: FakeModel
    plugins: FakePlugins
    probe: FakeProbe
    client: httpx.AsyncClient
    catalogue: RedisSessionCatalogue
    live: LiveTurns
    live_store: RedisLiveStore
    metrics: ServerMetrics
    images: RedisImageStore
    gate: OpenGate

    async def __aenter__(self) -> Self:
        await self.client.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.client.aclose()
        await self.close()

    async def close(self) -> None:
        """Its own connections; the store is its maker's."""
        await self.live.close()
        await self.live_store.close()
        await self.catalogue.close()
        await self.metrics.close()
        await self.images.close()
        await self.gate.close()

    async def post(self, **body: object) -> httpx.Response:
        return await self.client.post("/", json={"prompt": "你好", **body})


def make_site(store: RedisSessionStore, limits: TurnLimits | None = None) -> Site:
    model, plugins, probe = FakeModel(), FakePlugins(), FakeProbe()
    prompts = PromptBuilder(CharCodec(), "Be brief.\n")
    limits = limits or TurnLimits(max_model_len=4096)
    catalogue = RedisSessionCatalogue(store.url, store.settings)
    metrics = ServerMetrics(store.url, "moss-nano", limits.max_model_len, period_s=0.05)
    images = RedisImageStore(store.url, store.settings)
    replier = create_replier(model, plugins, prompts, watch=metrics.watch, pictures=images)
    gate = OpenGate(store.url)
    live_store, drain = RedisLiveStore(store.url), Drain()
    live = LiveTurns(Means(live_store, store, replier, error_body), limits, drain)
    service = HttpService(
        TurnRunner(store, replier, limits),
        replier,
        probe,
        ("moss-nano",),
        limits.max_model_len,
        frozenset({"calculator"}),
        gate=gate,
        tokenizer=CharCodec(),
        completer=Completer(RawModel(), CharCodec(), watch=metrics.watch),
        readiness=(store.is_ready,),
        max_body_bytes=64 * 1024,
        sessions=catalogue,
        live=live,
        drain=drain,
        metrics=metrics,
        images=images,
    )
    transport = httpx.ASGITransport(create_http_app(service), raise_app_exceptions=False)
    client = httpx.AsyncClient(transport=transport, base_url="http://localhost")
    return Site(
        service, model, plugins, probe, client, catalogue, live, live_store, metrics, images, gate
    )


def events_of(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.headers["content-type"].startswith("text/event-stream")
    events = response.text.removesuffix("\n\n").split("\n\n")
    return [json.loads(event.removeprefix("data: ")) for event in events]
