"""A live store whose client comes to a halt at one of its steps: before it, or after it was made.

What waits for that step then waits for ever, as in a process that is frozen or about to be killed.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from serve_app.live.redis import LiveSettings, RedisLiveStore

# Each begins a step of a turn; readers and patrols do not count.
STEPS = ("start", "append", "find", "claim", "record", "end")


class HaltingStore(RedisLiveStore):
    """`steps` are those that were begun."""

    def halt(self, step: int, is_after: bool) -> None:
        """Halts at step number `step`, counted from 0."""
        self.halt_at, self.is_after = step, is_after
        self.steps: list[str] = []
        self.is_halted = asyncio.Event()
        for name in STEPS:
            setattr(self, name, self._step(name, getattr(self, name)))

    def _step(self, name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        async def run(*args: Any, **kwargs: Any) -> Any:
            self.steps.append(name)
            is_last = len(self.steps) - 1 == self.halt_at
            if is_last and not self.is_after:
                await self._halt()
            result = await step(*args, **kwargs)
            if is_last:
                await self._halt()
            return result

        return run

    async def _halt(self) -> None:
        self.is_halted.set()
        await asyncio.Event().wait()


class FreezingStore(RedisLiveStore):
    """Between `freeze` and `thaw` no step begins, as in a process that was stopped."""

    def __init__(self, url: str, settings: LiveSettings) -> None:
        super().__init__(url, settings)
        self._may_run = asyncio.Event()
        self._may_run.set()
        for name in (*STEPS, "poll", "read", "patrol", "hand_over"):
            setattr(self, name, self._step(getattr(self, name)))

    def freeze(self) -> None:
        self._may_run.clear()

    def thaw(self) -> None:
        self._may_run.set()

    def _step(self, step: Callable[..., Any]) -> Callable[..., Any]:
        async def run(*args: Any, **kwargs: Any) -> Any:
            await self._may_run.wait()
            return await step(*args, **kwargs)

        return run
