"""Requests of chat completions to a site of fakes, and their streams."""

import json
from typing import Any

import httpx

from tests.support.site import Site

USER = {"role": "user", "content": "你好"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


async def complete(site: Site, *messages: dict[str, Any], **body: Any) -> httpx.Response:
    body = {"messages": messages or (USER,), **body}
    return await site.client.post("/v1/chat/completions", json=body)


async def stream(site: Site, *messages: dict[str, Any], **body: Any) -> list[dict[str, Any]]:
    """The chunks before `[DONE]`."""
    response = await complete(site, *messages, stream=True, **body)
    assert response.headers["content-type"].startswith("text/event-stream"), response.text
    *chunks, done, rest = response.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(chunk.removeprefix("data: ")) for chunk in chunks if chunk != ": ping"]


def text_of(chunks: list[dict[str, Any]], name: str = "content", index: int = 0) -> str:
    choices = [c for chunk in chunks for c in chunk["choices"] if c["index"] == index]
    return "".join(choice["delta"].get(name) or "" for choice in choices)
