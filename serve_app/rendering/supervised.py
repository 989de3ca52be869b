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
from serve_app.streams import is_being_cancelled

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

    async def ask(self, text: str, is_whole: bool, *, in_steps: bool = True) -> Answer:
        """The blocks of a text. `in_steps` each has `block_s` seconds, else they all have: that is
        cheaper for the few blocks of a text that grows. Never raises, but where it is cancelled.
        """
        await self._lock.acquire()
        return await asyncio.shield(self._keep(self._exchange(text, is_whole, in_steps)))

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

    async def _exchange(self, text: str, is_whole: bool, in_steps: bool) -> Answer:
        answer = Answer()
        try:
            worker = await self._running()
            async with asyncio.timeout(self._block_s) as timer:
                await worker.send((text, is_whole, in_steps))
                answer.ends = await worker.receive()
                if in_steps:
                    await self._collect(worker, answer, timer, not is_whole)
                else:
                    answer.htmls = await worker.receive()
        except TimeoutError:
            answer.failure = "slow"
            logger.warning("a reply took too long to render: it is shown as text")
        except Exception as error:
            answer.failure = "lost"
            bug = None if isinstance(error, WorkerLostError) else error
            logger.warning("the rendering worker is lost: %s", error, exc_info=bug)
        finally:
            if answer.failure or is_being_cancelled():
                await self._end_worker()
            self._lock.release()
        return answer

    async def _collect(
        self, worker: WorkerProcess, answer: Answer, timer: asyncio.Timeout, has_tail: bool
    ) -> None:
        """The HTML of one block after another, each of which has its own time."""
        now = asyncio.get_running_loop().time
        ends_at = now() + self._text_s
        for _ in range(len(answer.ends) + has_tail):
            timer.reschedule(min(now() + self._block_s, ends_at))
            answer.htmls.append(await worker.receive())

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
