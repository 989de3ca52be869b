"""A replica for autoscalers, whose load is the number of its streams."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict

from cluster.scaling.policy import TURN_TOKENS, Load


class Streams:
    """Two streams of `stream_s` seconds fill it."""

    def __init__(self, stream_s: float) -> None:
        self._stream_s = stream_s
        self._num_running = 0

    async def stream(self) -> AsyncIterator[int]:
        self._num_running += 1
        try:
            for number in range(int(self._stream_s * 10)):
                yield number
                await asyncio.sleep(0.1)
        finally:
            self._num_running -= 1

    def record_autoscaling_stats(self) -> dict[str, float]:
        num = self._num_running
        return asdict(Load(num, 0, num * TURN_TOKENS, num, 100, 2))
