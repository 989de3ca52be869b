"""Rank 0's side of a group of ranks, shared by every executor: steps, heartbeats, death.

Ranks above 0 wait for the next control message inside a collective, and a collective has a
timeout. So while nothing is asked, a thread sends them a heartbeat well inside it: an idle hour
leaves the group whole, and a rank whose rank 0 vanished without closing its connection (a host
that lost power) still notices within `step_timeout_s` instead of holding its memory for ever.
It knows not how ranks are started or ended.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from moss_tp.engine.running.batch import Batch
from moss_tp.engine.running.model_runner import ModelRunner
from moss_tp.engine.running.worker import Op, step_message
from moss_tp.errors import EngineDeadError
from moss_tp.sampling.row import SampledToken, SamplingRow

logger = logging.getLogger(__name__)

HEARTBEATS_PER_TIMEOUT = 4


class Leader:
    """Runs steps on rank 0's `runner` and, by control messages, on the ranks that follow."""

    def __init__(self, runner: ModelRunner, num_blocks: int, step_timeout_s: float) -> None:
        runner.allocate(num_blocks)
        self.num_blocks = num_blocks
        self._runner = runner
        self._has_followers = runner.group.size > 1
        self._interval = step_timeout_s / HEARTBEATS_PER_TIMEOUT
        self._collectives = threading.Lock()  # one control message at a time
        self._last_message = time.monotonic()
        self._state = threading.Lock()  # guards the three below
        self._death: str | None = None
        self._is_closed = False
        self._on_death: Callable[[str], None] | None = None
        self._stop_heartbeat = threading.Event()
        self._heartbeat = threading.Thread(target=self._beat, name="moss-heartbeat", daemon=True)
        if self._has_followers:
            self._heartbeat.start()

    @property
    def is_alive(self) -> bool:
        """False once a rank was lost; `is_closed` is the orderly end."""
        return self._death is None

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    def execute(self, batch: Batch, rows: Sequence[SamplingRow]) -> list[SampledToken]:
        """See `Executor.execute`."""
        self._check_alive()
        try:
            with self._collectives:
                if self._has_followers:
                    self._send(step_message(batch))
                return self._runner.run(batch, rows)
        except Exception as error:
            if self._death is None:  # else the broken step is only how it shows
                logger.exception("a step failed")
            self.fail(f"a step failed: {error}")
            raise EngineDeadError(self._death) from error
        except BaseException:
            # Ctrl-C on the thread that computes: the followers have begun what rank 0 will not end.
            if self._has_followers:
                self.fail("a step was interrupted")
            raise

    def watch(self, on_death: Callable[[str], None]) -> None:
        """See `Executor.watch`."""
        with self._state:
            self._on_death = on_death
            reason = self._death
        if reason is not None:
            on_death(reason)

    def fail(self, reason: str) -> None:
        """Marks the group as lost; the first reason stays. Called from any thread."""
        with self._state:
            if self._death is not None or self._is_closed:
                return
            self._death = reason
            notify = self._on_death
        self._stop_heartbeat.set()
        if notify is not None:
            notify(reason)

    def close(self) -> None:
        """Tells the followers to stop, if they still listen, and leaves the group."""
        with self._state:
            if self._is_closed:
                return
            self._is_closed = True
        self._stop_heartbeat.set()
        if self._heartbeat.is_alive():
            self._heartbeat.join()
        if self._death is None and self._has_followers:
            # A follower that is gone by now needs no word.
            with self._collectives, suppress(RuntimeError):
                self._send([Op.STOP])
        self._runner.group.close()

    def _check_alive(self) -> None:
        if self._death is not None:
            raise EngineDeadError(self._death)
        if self._is_closed:
            raise EngineDeadError("the engine is closed")

    def _send(self, message: list[int]) -> None:
        self._runner.group.broadcast_ints(message)
        self._last_message = time.monotonic()

    def _beat(self) -> None:
        """While a step runs it holds the lock, and counts as a message itself."""
        while not self._stop_heartbeat.wait(self._interval / 2):
            if time.monotonic() - self._last_message < self._interval / 2:
                continue
            try:
                with self._collectives:
                    self._send([Op.HEARTBEAT])
            except Exception as error:
                self.fail(f"a rank is gone: {error}")
