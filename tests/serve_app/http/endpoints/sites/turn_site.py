"""What tests of turns ask a site, and how they read its streams."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from serve_app.client.sse import EventStreamReader, ServerSentEvent
from serve_app.live.tail import Tail
from tests.serve_app.live.ingresses import num_told
from tests.support.site import Site
from tests.support.waiting import until

KEY = {"Idempotency-Key": "a-key"}


async def new_session(site: Site, **fields: object) -> str:
    made = await site.client.post("/v1/sessions", json=fields)
    return f"/v1/sessions/{made.json()['id']}/turns"


def parsed(text: str) -> list[tuple[str, str, Any]]:
    """Ids, kinds and data of the events in a body."""
    events: list[ServerSentEvent] = EventStreamReader().feed(text.encode())
    return [(event.last_id, event.type, json.loads(event.data)) for event in events]


def tail_of(site: Site, turns: str, turn_id: str) -> Tail:
    """What this server knows of a turn that it tells."""
    tail = site.live._follower.shared(turns.split("/")[3], turn_id)
    assert tail is not None
    return tail


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
    await until(lambda: len(site.model.requests) == 2)
    turn_id = site.model.requests[-1].request_id.split("-")[0]
    await until(lambda: num_told(tail_of(site, turns, turn_id).events) == 5)
    try:
        yield turns, turn_id
    finally:
        go_on.set()
        await asking
