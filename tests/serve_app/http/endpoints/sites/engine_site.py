"""The HTTP application over a real engine on a tiny model."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace

import httpx

from moss_tp.engine.async_engine import AsyncEngine
from moss_tp.engine.outputs import TokenDelta
from moss_tp.engine.request import EngineRequest
from moss_tp.tokenizer import Tokenizer
from serve_app.chat.completion import Completer
from serve_app.http.app import create_http_app
from serve_app.http.service import HttpService


@dataclass
class EngineModel:
    """Satisfies ChatModel. `requests` are those that it got."""

    engine: AsyncEngine
    requests: list[EngineRequest]

    async def generate(self, request: EngineRequest, session_id: str) -> AsyncGenerator[TokenDelta]:
        self.requests.append(request)
        stream = self.engine.generate(request)
        try:
            async for delta in stream:
                yield delta
        finally:
            await stream.aclose()


@dataclass
class EngineSite:
    """Raw completions by a real model; chats are by fakes."""

    service: HttpService
    model: EngineModel
    tokenizer: Tokenizer
    client: httpx.AsyncClient


def make_engine_site(
    service: HttpService, engine: AsyncEngine, tokenizer: Tokenizer, max_model_len: int
) -> EngineSite:
    """`service` with a model of its own for raw completions."""
    model = EngineModel(engine, [])
    changed = replace(
        service,
        tokenizer=tokenizer,
        completer=Completer(model, tokenizer),
        max_model_len=max_model_len,
    )
    transport = httpx.ASGITransport(create_http_app(changed), raise_app_exceptions=False)
    client = httpx.AsyncClient(transport=transport, base_url="http://localhost")
    return EngineSite(changed, model, tokenizer, client)
