"""Rank 0's side of a group of ranks, the same for every executor: steps, heartbeats, failure.

The other ranks run `worker_loop`. A rank may be stopped or hang at any time, and then rank 0 hangs
with it in a collective; a thread of its own watches how long that takes and fails the group. While
there are no steps, another thread sends heartbeats, which the workers answer: so a rank that hangs
in an idle group is noticed too, and workers that wait over a network never run into the timeout of
a collective. Starting and ending processes is the executor's job.

A runner that computes on a device of its own has up to `max_in_flight` steps queued there. Rank 0
only looks whether they have ended, and gives up once the group has failed. So it hangs nowhere,
whatever the device waits for.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial

from moss_tp.engine.graphs.wait import poll
from moss_tp.engine.running.runner import Runner
from moss_tp.engine.running.step import Step
from moss_tp.engine.running.step_times import MIN_LIMIT_S, NO_STEP, StepSize, StepTimes
from moss_tp.engine.running.step_watch import TICK_S, StepWatch
from moss_tp.engine.running.steps import FailedStep, LaunchedStep, LazyStep
from moss_tp.engine.running.worker import HEARTBEAT, STOP
from moss_tp.engine.scheduling.batch import Batch, Ints
from moss_tp.errors import EngineDeadError, StepMemoryError
from moss_tp.sampling.row import SampledToken, SamplingRow

logger = logging.getLogger(__name__)

HEARTBEATS_PER_TIMEOUT = 4
MAX_INTERVAL_S = 1.0  # between heartbeats
CLOSE_TIMEOUT_S = 5


class Driver:
    """Runs steps on rank 0's `runner` and, by control messages, on the workers.

    `step_timeout_s` limits a step until `StepTimes` has learnt how long steps take,
    `min_step_limit_s` is the least limit after that.
    """

    def __init__(
        self,
        runner: Runner,
        num_blocks: int,
        step_timeout_s: float,
        min_step_limit_s: float = MIN_LIMIT_S,
    ) -> None:
        runner.allocate(num_blocks)
        self.num_blocks = num_blocks
        self.max_in_flight = runner.max_in_flight  # see `Executor.max_in_flight`
        self._runner: Runner | None = runner  # until the driver is closed
        self._forward_s = 0.0  # when it was closed
        self._group = runner.group
        self._has_workers = runner.group.size > 1
        self._interval = min(MAX_INTERVAL_S, step_timeout_s / HEARTBEATS_PER_TIMEOUT)
        self._watch = StepWatch(StepTimes(step_timeout_s, min_step_limit_s), time.monotonic)
        # Held from a control message until its step has ended, or has been launched.
        self._collectives = threading.Lock()
        self._in_flight: list[LaunchedStep] = []
        self._last_message = time.monotonic()
        self._state = threading.Lock()  # guards the four below
        self._death: str | None = None
        self._is_closing = False
        self._is_closed = False
        self._watchers: list[Callable[[str], None]] = []
        self._stop_threads = threading.Event()
        self._threads = [threading.Thread(target=self._tick, name="moss-watch", daemon=True)]
        if self._has_workers:
            beat = threading.Thread(target=self._beat, name="moss-heartbeat", daemon=True)
            self._threads.append(beat)
        for thread in self._threads:
            thread.start()

    @property
    def is_alive(self) -> bool:
        """False once the group is lost, also by a step that is stuck when the group is closed."""
        return self._death is None

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    @property
    def late_step(self) -> str | None:
        """See `Executor.late_step`."""
        return self._watch.late

    @property
    def forward_s(self) -> float:
        """See `Executor.forward_s`."""
        runner = self._runner
        return self._forward_s if runner is None else runner.forward_s

    def submit(self, batch: Batch, rows: Sequence[SamplingRow]) -> Step:
        """See `Executor.submit`."""
        if self.max_in_flight == 1:
            return LazyStep(partial(self._run, batch, rows))
        return self._launch(batch, rows)

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
        self._stop_threads.set()
        for on_death in watchers:
            try:
                on_death(reason)
            except Exception:  # the others must know, too
                logger.exception("a watcher of the ranks failed")

    def close(self) -> None:
        """Stops the workers, if they still listen, leaves the group and lets go of the model.
        Idempotent; while another thread closes the group, it returns at once."""
        with self._state:
            if self._is_closing:
                return
            self._is_closing = True
        self._settle()
        with self._state:
            self._is_closed = True
        self._stop_threads.set()
        for thread in self._threads:
            thread.join(CLOSE_TIMEOUT_S)
        hangs = any(thread.is_alive() for thread in self._threads)  # in a heartbeat
        if self._death is None and self._has_workers and not hangs:
            self._stop_workers()
        self._group.close()
        self._let_go()

    def _let_go(self) -> None:
        """Of all that holds the runner, or is held in a cycle: the model's memory is free as soon
        as its last user drops it, and not when garbage is collected."""
        self._forward_s, self._runner = self.forward_s, None
        self._in_flight.clear()
        self._watch.clear()
        with self._state:
            self._watchers.clear()

    def _stop_workers(self) -> None:
        """Says STOP, unless a thread is stuck in launching a step."""
        timeout = CLOSE_TIMEOUT_S if self.max_in_flight > 1 else -1
        if self._collectives.acquire(timeout=timeout):
            with suppress(RuntimeError):  # a worker that has just died needs no message
                self._send(STOP)
            self._collectives.release()

    def _run(self, batch: Batch, rows: Sequence[SamplingRow]) -> list[SampledToken]:
        """A whole step, in the calling thread."""
        self._check_alive()
        with self._guarded(), self._collectives, self._watch.step(StepSize.of(batch)):
            if self._has_workers:
                self._send(batch.ints)
            return self._open_runner.launch(batch, rows).tokens()

    def _launch(self, batch: Batch, rows: Sequence[SamplingRow]) -> Step:
        self._check_alive()
        with self._guarded(), self._collectives:
            watched = self._watch.begin(StepSize.of(batch))
            try:
                if self._has_workers:
                    self._send(batch.ints)
                pending = self._open_runner.launch(batch, rows)
            except BaseException as error:
                self._watch.drop(watched)
                if isinstance(error, StepMemoryError):
                    return FailedStep(error)
                raise
            step = LaunchedStep(pending, watched, self._wait)
            self._in_flight.append(step)
            return step

    def _wait(self, step: LaunchedStep) -> list[SampledToken]:
        """The tokens of a launched step. May be called again after a Ctrl-C."""
        try:
            poll(step.pending.is_done, self._check_alive)
            tokens = step.pending.tokens()
        except StepMemoryError:
            self._watch.drop(step.watched)
            self._forget(step)
            raise
        except Exception as error:
            raise self._failed(error) from error
        self._watch.end(step.watched)
        self._forget(step)
        return tokens

    def _forget(self, step: LaunchedStep) -> None:
        if step in self._in_flight:  # not after a Ctrl-C, if it came late
            self._in_flight.remove(step)

    @property
    def _open_runner(self) -> Runner:
        if self._runner is None:
            raise EngineDeadError("the engine is closed")
        return self._runner

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except StepMemoryError:
            raise
        except Exception as error:
            raise self._failed(error) from error
        except BaseException:
            # Ctrl-C in the computing thread: workers are in a step that rank 0 will not finish.
            if self._has_workers:
                self.fail("a step was interrupted")
            raise

    def _failed(self, error: Exception) -> EngineDeadError:
        """What a step raises that ended with `error`; the group has failed with it."""
        if isinstance(error, EngineDeadError):
            return error
        if self._death is None:  # otherwise the failing step is only a consequence
            logger.error("a step failed", exc_info=error)
        self.fail(f"a step failed: {error}")
        return EngineDeadError(self._death or "the engine is closed")

    def _settle(self) -> None:
        """Waits for the steps in flight, but not for a device that is stuck: that fails the group,
        so that no worker is waited for."""
        deadline = time.monotonic() + CLOSE_TIMEOUT_S

        def check() -> None:
            self._check_alive()
            if time.monotonic() > deadline:
                raise EngineDeadError("a step did not end while the engine was closed")

        try:
            for step in list(self._in_flight):
                poll(step.pending.is_done, check)
        except Exception as error:
            self.fail(str(error))

    def _check_alive(self) -> None:
        if self._death is not None:
            raise EngineDeadError(self._death)
        if self._is_closed:
            raise EngineDeadError("the engine is closed")

    def _send(self, message: Ints) -> None:
        self._group.broadcast_ints(message)
        self._last_message = time.monotonic()

    def _tick(self) -> None:
        """The watch's thread. A stuck step ends the group, although rank 0 hangs in it."""
        while not self._stop_threads.wait(TICK_S):
            if (reason := self._watch.tick()) is not None:
                self.fail(reason)

    def _beat(self) -> None:
        """The heartbeat thread. A running step holds the lock, or is in flight, and counts as a
        message."""
        while not self._stop_threads.wait(self._interval / 2):
            if time.monotonic() - self._last_message < self._interval / 2:
                continue
            try:
                with self._collectives:
                    if not self._in_flight:
                        self._heartbeat()
            except Exception as error:
                self.fail(f"a rank is gone: {error}")

    def _heartbeat(self) -> None:
        with self._watch.step(NO_STEP):
            self._send(HEARTBEAT)
            self._group.barrier()
