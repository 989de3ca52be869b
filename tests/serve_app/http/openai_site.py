"""A site on a real server, and OpenAI's own clients of it, as they are.

The synchronous client runs in a thread, since the server shares the test's event loop.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import openai
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from serve_app.http.app import create_http_app
from tests.support.fakes.gates import ANN, FakeGate
from tests.support.http_server import serving
from tests.support.site import Site

T = TypeVar("T")
MODEL = "moss-nano"


@dataclass
class OpenAISite:
    """`client` and `sync` are unmodified; `site` has the fakes behind the server."""

    site: Site
    gate: FakeGate
    client: openai.AsyncOpenAI
    sync: openai.OpenAI

    async def ask(self, text: str = "你好", **options: Any) -> ChatCompletion:
        answer = await self.client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": text}], **options
        )
        assert isinstance(answer, ChatCompletion)
        return answer

    async def stream(self, text: str = "你好", **options: Any) -> list[ChatCompletionChunk]:
        stream = await self.client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": text}], stream=True, **options
        )
        return [chunk async for chunk in stream]

    async def in_thread(self, use: Callable[[openai.OpenAI], T]) -> T:
        return await asyncio.to_thread(use, self.sync)


@asynccontextmanager
async def openai_site(site: Site, **changes: Any) -> AsyncIterator[OpenAISite]:
    gate = FakeGate()
    service = replace(site.service, gate=gate, requires_key=True, **changes)
    async with serving(create_http_app(service)) as url:
        options: dict[str, Any] = {"base_url": f"{url}/v1", "api_key": ANN, "timeout": 10}
        async with openai.AsyncOpenAI(**options) as client:
            with openai.OpenAI(**options) as sync:
                yield OpenAISite(site, gate, client, sync)
