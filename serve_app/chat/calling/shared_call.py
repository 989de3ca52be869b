"""A plugin call that several choices wait for, and that ends early only if all of them leave."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Generic, Self, TypeVar

Result = TypeVar("Result")


class SharedCall(Generic[Result]):
    """Begins at once. Whoever has joined it leaves it, also when its result has come."""

    def __init__(self, work: Coroutine[Any, Any, Result]) -> None:
        self._task = asyncio.create_task(work)
        self._num_waiting = 0

    @property
    def is_given_up(self) -> bool:
        """Whether it was cancelled, so that nobody may join it."""
        return self._task.cancelled() or self._task.cancelling() > 0

    def join(self) -> Self:
        self._num_waiting += 1
        return self

    async def result(self) -> Result:
        """Raises what the work raises. Cancelling the caller does not cancel the work."""
        return await asyncio.shield(self._task)

    def leave(self) -> "asyncio.Future[Any]":
        """What to await, which raises nothing: the end of work that nobody waits for any more."""
        self._num_waiting -= 1
        if self._num_waiting:
            return asyncio.gather()
        self._task.cancel()
        return asyncio.gather(self._task, return_exceptions=True)
