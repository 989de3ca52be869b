"""Work under a caller's limits: admitted at the door, charged for what it used at the end."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

from serve_app.access.gate import Gate
from serve_app.access.principal import Principal
from serve_app.chat.events import Done
from serve_app.chat.turn import TurnDone

Event = TypeVar("Event")

_BYTES_PER_TOKEN = 3


async def admitted(
    gate: Gate, principal: Principal, text: str, events: AsyncGenerator[Event]
) -> AsyncGenerator[Event]:
    """`events` of turns or replies, which run within an admission of the caller's `gate`.

    At the door `text` is charged for, roughly; a Done or TurnDone says how many tokens it were.
    """
    num_tokens = len(text.encode("utf-8", "surrogatepass")) // _BYTES_PER_TOKEN + 1
    async with aclosing(events), gate.admit(principal, num_tokens) as admission:
        num_used = 0
        async for event in events:
            if isinstance(event, Done | TurnDone):
                num_used += event.usage.prompt_tokens + event.usage.completion_tokens
                admission.num_tokens = num_used
            yield event
