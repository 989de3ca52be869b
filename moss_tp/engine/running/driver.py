"""Rank 0's side of a group of ranks, the same for every executor: steps, heartbeats, failure.

The other ranks run `worker_loop`: they wait for the next control message in a collective, and a
collective has a timeout. While there are no steps, a thread sends heartbeats well within that
timeout. So an idle group stays alive, and workers whose rank 0 disappeared without closing its
connection (a host that lost power) exit within `step_timeout_s` and free their memory.
Starting and ending processes is the executor's job.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from moss_tp.engine.running.batch import Batch, Ints
from moss_tp.engine.running.model_runner import ModelRunner
from moss_tp.engine.running.worker import HEARTBEAT, STOP
from moss_tp.errors import EngineDeadError
from moss_tp.sampling.row import SampledToken, SamplingRow

logger = logging.getLogger(__name__)

HEARTBEATS_PER_TIMEOUT = 4


class Driver:
    """Runs steps on rank 0's `runner` and, by control messages, on the workers."""

    def __init__(self, runner: ModelRunner, num_blocks: int, step_timeout_s: float) -> None:
        runner.allocate(num_blocks)
        self.num_blocks = num_blocks
        self._runner = runner
        self._has_workers = runner.group.size > 1
        self._interval = step_timeout_s / HEARTBEATS_PER_TIMEOUT
        self._collectives = threading.Lock()  # held from a control message to the end of its step
        self._last_message = time.monotonic()
        self._state = threading.Lock()  # guards the three below
        self._death: str | None = None
        self._is_closed = False
        self._watchers: list[Callable[[str], None]] = []
        self._stop_heartbeat = threading.Event()
        self._heartbeat = threading.Thread(target=self._beat, name="moss-heartbeat", daemon=True)
        if self._has_workers:
            self._heartbeat.start()

    @property
    def is_alive(self) -> bool:
        """False once a rank was lost. Closing does not change it."""
        return self._death is None

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    @property
    def forward_s(self) -> float:
        """See `Executor.forward_s`."""
        return self._runner.forward_s

    def execute(self, batch: Batch, rows: Sequence[SamplingRow]) -> list[SampledToken]:
        """See `Executor.execute`."""
        self._check_alive()
        try:
            with self._collectives:
                if self._has_workers:
                    self._send(batch.ints)
                return self._runner.run(batch, rows)
        except Exception as error:
            if self._death is None:  # otherwise the failing step is only a consequence
                logger.exception("a step failed")
            self.fail(f"a step failed: {error}")
            raise EngineDeadError(self._death) from error
        except BaseException:
            # Ctrl-C in the computing thread: workers are in a step that rank 0 will not finish.
            if self._has_workers:
                self.fail("a step was interrupted")
            raise

    def watch(self, on_death: Callable[[str], None]) -> None:
        """See `Executor.watch`."""
        with self._state:
            self._watchers.append(on_death)
            reason = self._death
        if reason is not None:
            on_death(reason)

    def fail(self, reason: str) -> None:
        """Marks the group as lost and calls the watchers. May be called from any thread; only the
        first reason counts."""
        with self._state:
            if self._death is not None or self._is_closed:
                return
            self._death = reason
            watchers = list(self._watchers)
        self._stop_heartbeat.set()
        for on_death in watchers:
            on_death(reason)

    def close(self) -> None:
        """Stops the workers, if they still listen, and leaves the group. Idempotent."""
        with self._state:
            if self._is_closed:
                return
            self._is_closed = True
        self._stop_heartbeat.set()
        if self._heartbeat.is_alive():
            self._heartbeat.join()
        if self._death is None and self._has_workers:
            # A worker that has just died needs no message.
            with self._collectives, suppress(RuntimeError):
                self._send(STOP)
        self._runner.group.close()

    def _check_alive(self) -> None:
        if self._death is not None:
            raise EngineDeadError(self._death)
        if self._is_closed:
            raise EngineDeadError("the engine is closed")

    def _send(self, message: Ints) -> None:
        self._runner.group.broadcast_ints(message)
        self._last_message = time.monotonic()

    def _beat(self) -> None:
        """The heartbeat thread. A running step holds the lock and counts as a message."""
        while not self._stop_heartbeat.wait(self._interval / 2):
            if time.monotonic() - self._last_message < self._interval / 2:
                continue
            try:
                with self._collectives:
                    self._send(HEARTBEAT)
            except Exception as error:
                self.fail(f"a rank is gone: {error}")
