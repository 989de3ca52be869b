"""What a reply without a live turn is charged for where its client leaves."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any

import pytest

from serve_app.chat.events import Delta, Event
from serve_app.chat.request import Meter
from serve_app.http.admission import metered
from tests.serve_app.http.clients import client_of
from tests.support.fakes.gates import ANN, PRINCIPALS, FakeGate
from tests.support.site import Site

AT_DOOR = 7
MESSAGES = [{"role": "user", "content": "hi"}]


async def leave_after(num_generated: int, *told: Event) -> int:
    """What is charged for a reply that is cut after so many tokens; some of them were told."""
    gate, meter = FakeGate(), Meter()

    async def reply() -> AsyncGenerator[Event]:
        for event in told:
            yield event
        meter.num_tokens = num_generated
        raise ConnectionError

    events = metered(gate, PRINCIPALS[ANN], AT_DOOR, reply(), meter)
    with suppress(ConnectionError):
        async with aclosing(events):
            async for _ in events:
                pass
    ((_, admission),) = gate.admissions
    return admission.num_tokens


async def test_thoughts_that_nobody_was_told_are_charged() -> None:
    assert await leave_after(30) == AT_DOOR + 30
    assert await leave_after(30, Delta(0, " hello", (1, 2), ())) == AT_DOOR + 30
    assert await leave_after(0) == AT_DOOR


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/", {"prompt": "hi"}),
        ("/v1/chat/completions", {"messages": MESSAGES}),
        ("/api/inference", {"request": "hi"}),
    ],
)
async def test_a_client_that_leaves_while_the_model_thinks_pays(
    site: Site, path: str, body: dict[str, Any]
) -> None:
    gate, has_thought = FakeGate(), asyncio.Event()

    async def hang(is_reply: bool, num_tokens: int) -> None:
        if num_tokens >= 5:
            has_thought.set()
            await asyncio.Event().wait()

    site.model.wait = hang
    async with client_of(site, gate=gate) as client:
        headers = {"Authorization": f"Bearer {ANN}"}
        asked = asyncio.create_task(client.post(path, json=body, headers=headers))
        await has_thought.wait()
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
    ((_, admission),) = gate.admissions
    assert admission.ticket is not None
    assert admission.num_tokens >= admission.ticket.num_tokens + 4
