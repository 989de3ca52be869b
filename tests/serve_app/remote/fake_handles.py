"""Deployment handles without a deployment."""

import asyncio
from collections.abc import Generator
from typing import Self

from moss_tp.engine.outputs import TokenDelta
from plugins_svc.sdk.output import PluginOutput
from serve_app.remote.packed import pack


class UnreachableHandle:
    """A deployment handle whose calls never reach a replica."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.num_calls = 0

    def options(self, **options: object) -> Self:
        return self

    def broadcast(self, method: str) -> Self:
        return self

    async def _fetch_replica_results_async(self) -> list[object]:
        raise self.error

    async def _fetch_future_result_async(self) -> None:
        raise self.error

    def __getattr__(self, method: str) -> Self:
        return self

    def remote(self, *arguments: object, **options: object) -> Self:
        self.num_calls += 1
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        raise self.error

    def __await__(self) -> Generator[None, None, object]:
        raise self.error
        yield

    def cancel(self) -> None:
        """Nothing runs."""


class EndingHandle(UnreachableHandle):
    """A deployment handle of a replica that answers each call with one delta."""

    def __init__(self) -> None:
        super().__init__(StopAsyncIteration())
        self.num_cancelled = 0
        self._has_answered = False

    async def __anext__(self) -> bytes:
        self._has_answered = not self._has_answered
        if not self._has_answered:
            raise self.error
        return pack(TokenDelta((65,), "A", "stop", 1, 0))

    def cancel(self) -> None:
        self._has_answered = False
        self.num_cancelled += 1


class SlowHandle(UnreachableHandle):
    """A deployment handle whose replica takes a call after `take_s`, and answers
    `answer_s` later."""

    def __init__(self, take_s: float, answer_s: float) -> None:
        super().__init__(asyncio.CancelledError())
        self.take_s = take_s
        self.answer_s = answer_s
        self.num_cancelled = 0

    async def _fetch_future_result_async(self) -> None:
        await asyncio.sleep(self.take_s)

    def __await__(self) -> Generator[None, None, object]:
        yield from asyncio.sleep(self.answer_s).__await__()
        return PluginOutput(True, ("late",))

    def cancel(self) -> None:
        self.num_cancelled += 1
