"""The rendering worker of an ingress: started when it is needed, killed when it is slow.

It renders one text at a time; others wait. Who no longer waits does not stop it: that would cost
the others a new worker.
"""

import asyncio
import logging
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from serve_app.rendering.process import COMMAND, WorkerLostError, WorkerProcess

logger = logging.getLogger(__name__)

BLOCK_S = 1.0
TEXT_S = 4.0
RETRY_S = 5.0


@dataclass
class Answer:
    """What a worker made of a text: where its blocks end, the HTML of the first of them (None: it
    could not), and why there is no more of it."""

    ends: list[int] = field(default_factory=list)
    htmls: list[str | None] = field(default_factory=list)
    failure: Literal["", "slow", "lost"] = ""


class Supervisor:
    """`block_s` seconds are for a step of the worker, `text_s` for all of a text."""

    def __init__(
        self,
        block_s: float = BLOCK_S,
        text_s: float = TEXT_S,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._block_s, self._text_s = block_s, text_s
        self._command = command
        self._worker: WorkerProcess | None = None
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._down_until = 0.0
        self._is_closed = False

    @property
    def pid(self) -> int | None:
        """Of the worker that runs."""
        return None if self._worker is None else self._worker.pid

    def open(self) -> None:
        """Begins to start the worker, if there is none."""
        if self._worker is None and not self._lock.locked() and not self._is_closed:
            self._keep(self._warm())

    async def ask(self, text: str, is_whole: bool) -> Answer:
        """Never raises, but where it is cancelled."""
        await self._lock.acquire()
        return await asyncio.shield(self._keep(self._exchange(text, is_whole)))

    async def close(self) -> None:
        self._is_closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._end_worker()

    def _keep(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _warm(self) -> None:
        async with self._lock:
            with suppress(WorkerLostError):
                await self._running()

    async def _exchange(self, text: str, is_whole: bool) -> Answer:
        answer = Answer()
        try:
            worker = await self._running()
            ends_at = time.monotonic() + self._text_s
            await self._step(worker.send((text, is_whole)), ends_at)
            answer.ends = await self._step(worker.receive(), ends_at)
            for _ in range(len(answer.ends) + (not is_whole)):
                answer.htmls.append(await self._step(worker.receive(), ends_at))
        except TimeoutError:
            answer.failure = "slow"
            logger.warning("a reply took too long to render: it is shown as text")
        except WorkerLostError as error:
            answer.failure = "lost"
            logger.warning("the rendering worker is lost: %s", error)
        finally:
            if answer.failure or asyncio.current_task().cancelling():  # type: ignore[union-attr]
                await self._end_worker()
            self._lock.release()
        return answer

    async def _step(self, work: Coroutine[Any, Any, Any], ends_at: float) -> Any:
        left_s = max(0.0, ends_at - time.monotonic())
        async with asyncio.timeout(min(self._block_s, left_s)):
            return await work

    async def _running(self) -> WorkerProcess:
        if self._worker is not None and not self._worker.is_running:
            await self._end_worker()
        if self._worker is None:
            if self._is_closed or time.monotonic() < self._down_until:
                raise WorkerLostError("it does not start")
            self._down_until = time.monotonic() + RETRY_S
            self._worker = await WorkerProcess.start(self._command)
            self._down_until = 0.0
        return self._worker

    async def _end_worker(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.kill()
