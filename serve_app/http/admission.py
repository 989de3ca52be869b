"""Work under a caller's limits: admitted at the door, charged for what it used at the end."""

from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

from serve_app.access.gate import Gate
from serve_app.access.principal import Principal
from serve_app.chat.completion import CompletionDelta, CompletionDone
from serve_app.chat.events import Delta, Done, Thoughts
from serve_app.chat.request import Meter
from serve_app.chat.turn import TurnDone

Event = TypeVar("Event")

_BYTES_PER_TOKEN = 3


def admitted(
    gate: Gate, principal: Principal, text: str, meter: Meter, events: AsyncGenerator[Event]
) -> AsyncGenerator[Event]:
    """`events` of turns or replies, which run within an admission of the caller's `gate`.

    At the door `text` is charged for, roughly; a Done or TurnDone says how many tokens it were.
    What is cut before is charged for what the `meter` of its request shows.
    """
    num_tokens = len(text.encode("utf-8", "surrogatepass")) // _BYTES_PER_TOKEN + 1
    return metered(gate, principal, num_tokens, events, meter)


async def metered(
    gate: Gate,
    principal: Principal,
    num_prompt_tokens: int,
    events: AsyncGenerator[Event],
    meter: Meter | None = None,
) -> AsyncGenerator[Event]:
    """`events` of turns, replies or raw completions, within an admission that is charged for what
    they have used, also where they are cut. A `meter` knows of tokens that no event tells."""
    async with aclosing(events), gate.admit(principal, num_prompt_tokens) as admission:
        bill = _Bill(num_prompt_tokens, meter or Meter())
        try:
            async for event in events:
                bill.note(event)
                yield event
        finally:
            admission.num_tokens = bill.num_tokens


class _Bill:
    """What was charged at the door counts until a choice ends; whoever leaves before pays it."""

    def __init__(self, num_at_door: int, meter: Meter) -> None:
        self._num_at_door = num_at_door
        self._meter = meter
        self._num_ended = 0
        self._told: Counter[int] = Counter()  # tokens of each choice that goes on

    @property
    def num_tokens(self) -> int:
        num_generated = self._told.total()
        if self._num_ended == 0:  # else it is in what has ended
            num_generated = max(num_generated, self._meter.num_tokens)
        return self._num_at_door + self._num_ended + num_generated

    def note(self, event: object) -> None:
        if isinstance(event, Thoughts | Delta | CompletionDelta):
            self._told[event.choice] += len(event.token_ids)
        elif isinstance(event, Done | TurnDone | CompletionDone):
            self._num_at_door = 0
            if not (isinstance(event, TurnDone) and event.is_replayed):
                self._num_ended += event.usage.num_tokens
            del self._told[0 if isinstance(event, TurnDone) else event.choice]
