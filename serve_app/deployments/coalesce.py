"""Fewer, larger deltas: a message through a deployment handle costs more than a token does.

Coalescing changes when text travels, never which text: the output, joined, is the input, joined.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from moss_tp.engine.outputs import TokenDelta
from moss_tp.engine.request import DELTA_INTERVAL_S
from serve_app.streams import with_timeouts


async def coalesce(
    deltas: AsyncIterator[TokenDelta], interval_s: float = DELTA_INTERVAL_S
) -> AsyncGenerator[TokenDelta, None]:
    """The first delta at once, later ones joined, at most one every `interval_s` seconds.

    No delta waits longer than that, even if the next token does. Closing it closes `deltas`.
    """
    pending: TokenDelta | None = None
    due = 0.0  # when the next message may be sent

    def time_left() -> float | None:
        return None if pending is None else due - time.monotonic()

    async with aclosing(with_timeouts(deltas, time_left)) as arrivals:
        async for delta in arrivals:
            if delta is not None:
                pending = delta if pending is None else _join(pending, delta)
            if pending is not None and time.monotonic() >= due:
                due = time.monotonic() + interval_s
                yield pending
                pending = None
    if pending is not None:
        yield pending


def _join(first: TokenDelta, second: TokenDelta) -> TokenDelta:
    return second._replace(
        token_ids=first.token_ids + second.token_ids,
        text=first.text + second.text,
        logprobs=first.logprobs + second.logprobs,
        prompt_logprobs=first.prompt_logprobs,  # only the first of a request has them
    )
