"""What tests of turns ask a site, and how they read its streams."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from serve_app.client.sse import EventStreamReader, ServerSentEvent
from tests.support.site import Site

KEY = {"Idempotency-Key": "a-key"}


async def new_session(site: Site, **fields: object) -> str:
    made = await site.client.post("/v1/sessions", json=fields)
    return f"/v1/sessions/{made.json()['id']}/turns"


def parsed(text: str) -> list[tuple[str, str, Any]]:
    """Ids, kinds and data of the events in a body."""
    events: list[ServerSentEvent] = EventStreamReader().feed(text.encode())
    return [(event.last_id, event.type, json.loads(event.data)) for event in events]


@asynccontextmanager
async def held_turn(site: Site) -> AsyncIterator[tuple[str, str]]:
    """The path and the id of a turn whose reply has begun and does not go on."""
    go_on = asyncio.Event()

    async def wait(is_reply: bool, num_tokens: int) -> None:
        if is_reply and num_tokens == 5:
            await go_on.wait()

    site.model.wait = wait
    turns = await new_session(site)
    asking = asyncio.create_task(site.client.post(turns, json={"user": "hi"}, headers=KEY))
    while site.model.num_running == 0 or len(site.model.requests) < 2:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    try:
        yield turns, site.model.requests[-1].request_id.split("-")[0]
    finally:
        go_on.set()
        await asking
