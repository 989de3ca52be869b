"""Fewer, larger deltas: a message to an ingress costs more than a token does.

Coalescing changes when text travels, never which text: the output, joined, is the input, joined.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from moss_tp.engine.outputs import TokenDelta

# All streams of a replica together send at most 250 messages a second, until each of them would
# wait so long that its reader sees it.
MESSAGE_S = 0.004
MAX_SHARED_S = 0.2


class SharedWay:
    """The way to the ingresses, which all streams of a replica share."""

    def __init__(self) -> None:
        self.num_streams = 0

    @contextmanager
    def stream(self) -> Iterator[None]:
        """There is one more for the block."""
        self.num_streams += 1
        try:
            yield
        finally:
            self.num_streams -= 1

    def interval_s(self, wanted_s: float) -> float:
        """How long a stream now joins tokens that wants to for at least `wanted_s`; 0: never."""
        if not wanted_s:
            return 0.0
        return max(wanted_s, min(MAX_SHARED_S, MESSAGE_S * self.num_streams))


class Coalescer:
    """Sends the first delta at once and joins later ones: at most one every `interval_s()` seconds.

    No delta waits longer than that, even if the next token does.
    """

    def __init__(self, send: Callable[[TokenDelta], None], interval_s: Callable[[], float]) -> None:
        self._send = send
        self._interval_s = interval_s
        self._loop = asyncio.get_running_loop()
        self._pending: TokenDelta | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0  # when the next message may be sent

    def add(self, delta: TokenDelta) -> None:
        self._pending = delta if self._pending is None else _join(self._pending, delta)
        if delta.finish_reason is not None or self._loop.time() >= self._due:
            self.flush()
        elif self._timer is None:
            self._timer = self._loop.call_at(self._due, self.flush)

    def flush(self) -> None:
        """Sends what is left; then nothing is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._pending is not None:
            self._due = self._loop.time() + self._interval_s()
            pending, self._pending = self._pending, None
            self._send(pending)


def _join(first: TokenDelta, second: TokenDelta) -> TokenDelta:
    return second._replace(
        token_ids=first.token_ids + second.token_ids,
        text=first.text + second.text,
        logprobs=first.logprobs + second.logprobs,
        prompt_logprobs=first.prompt_logprobs,  # only the first of a request has them
    )
