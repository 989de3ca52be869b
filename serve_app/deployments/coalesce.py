"""Fewer, larger deltas: a message through a deployment handle costs more than a token does.

It changes when text travels, never which: joined together, what comes out is what went in.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace

from moss_tp.engine.outputs import TokenDelta

DEFAULT_INTERVAL_S = 0.04


async def coalesce(
    deltas: AsyncIterator[TokenDelta], interval_s: float = DEFAULT_INTERVAL_S
) -> AsyncGenerator[TokenDelta, None]:
    """The first delta at once, later ones joined, at most one every `interval_s`.

    Nothing waits longer than that, even when the next token does. Closing it closes `deltas`.
    """
    pending: TokenDelta | None = None
    due = 0.0  # when the next message may go out
    upcoming = asyncio.ensure_future(anext(deltas, None))
    try:
        while True:
            wait_s = None if pending is None else max(0.0, due - time.monotonic())
            await asyncio.wait({upcoming}, timeout=wait_s)
            if upcoming.done():
                delta = upcoming.result()
                if delta is None:
                    break
                pending = delta if pending is None else _join(pending, delta)
                upcoming = asyncio.ensure_future(anext(deltas, None))
            if pending is not None and time.monotonic() >= due:
                due = time.monotonic() + interval_s
                yield pending
                pending = None
        if pending is not None:
            yield pending
    finally:
        upcoming.cancel()
        await asyncio.gather(upcoming, return_exceptions=True)
        if isinstance(deltas, AsyncGenerator):
            await deltas.aclose()


def _join(first: TokenDelta, second: TokenDelta) -> TokenDelta:
    return replace(
        second,
        token_ids=first.token_ids + second.token_ids,
        text=first.text + second.text,
        logprobs=first.logprobs + second.logprobs,
    )
