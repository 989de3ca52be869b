"""The steps that are on their way: scheduled, submitted, and applied to their sequences at the end.

With an executor that takes one step at a time, a step starts when the one before it has ended. With
one that takes two, the next step is queued behind the running one, unless drafts promise more:

    schedule n+1, submit n+1 | tell the texts of n-1 | wait for n, update | schedule n+2, ...

Knows sequences, no requests and no text.
"""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field

from moss_tp.engine.running.executor import Executor
from moss_tp.engine.scheduling.batch import Batch
from moss_tp.engine.scheduling.chunk import Chunk, sampling_rows
from moss_tp.engine.scheduling.drafting import outlook_of
from moss_tp.engine.scheduling.pace import Pace
from moss_tp.engine.scheduling.scheduler import Scheduler
from moss_tp.engine.scheduling.scored import Scored
from moss_tp.engine.scheduling.sequence import Sequence
from moss_tp.engine_config import EngineConfig
from moss_tp.errors import EngineDeadError, StepMemoryError
from moss_tp.sampling.row import SampledToken, SamplingRow

CLOSE_TIMEOUT_S = 5.0
NUM_ASKED = 8  # sequences whose drafters say what drafts promise, while nothing is drafted


@dataclass(eq=False)
class InFlight:
    """A step on its way. `sample` waits for its tokens; None until the step is submitted."""

    chunks: list[Chunk]
    batch: Batch
    rows: list[SamplingRow]
    started: float
    scored: list[Scored]
    sample: Callable[[], list[SampledToken]] | None = None


@dataclass(frozen=True)
class StepEnd:
    """`advanced` are the sequences that got tokens. A step that did not fit has none: of it nothing
    counts. `too_large` is the sequence whose next step alone does not fit."""

    chunks: list[Chunk]
    advanced: list[Sequence] = field(default_factory=list)
    did_fit: bool = True
    too_large: Sequence | None = None


class Stepper:
    """`clock` returns seconds. Owns `executor` and closes it."""

    def __init__(
        self,
        scheduler: Scheduler,
        executor: Executor,
        config: EngineConfig,
        clock: Callable[[], float],
    ) -> None:
        self._scheduler = scheduler
        self._executor = executor
        self._block_size = config.block_size
        self._clock = clock
        self._max_in_flight = executor.max_in_flight
        # With several ranks never in the main thread: Ctrl-C there would interrupt rank 0 in a step
        # that the workers have started.
        self._has_ranks = config.tp_size > 1
        self._pace = Pace(config.traits.row_cost)
        self._in_flight: deque[InFlight] = deque()
        self._ended_at: float | None = None  # of the last step, while there was work since
        self._thread = ThreadPoolExecutor(1, "moss-step")
        self._is_closed = False
        self._num_asked = 0
        self._launching: Future[None] | None = None
        self._refused: Sequence | None = None  # whose single token did not fit, just now

    @property
    def is_busy(self) -> bool:
        """Whether a step is on its way."""
        return bool(self._in_flight)

    def start(self, is_beside: bool) -> bool:
        """Starts the next step, or the next two. False if no step is on its way then.

        A step that would run in `finish` runs in a thread if the caller has work beside it.
        """
        while len(self._in_flight) < self._max_in_flight:
            chunks = self._schedule()
            if not chunks:
                break
            self._submit(chunks, is_beside)
        return bool(self._in_flight)

    def finish(self) -> StepEnd | None:
        """Waits for the first of the steps that are on their way (or runs it now).

        Raises EngineDeadError when a rank is lost; nothing can be started after that.
        """
        if not self._in_flight:
            return None
        for step in self._in_flight:  # a Ctrl-C may have come in between
            self._ensure_submitted(step)
        step = self._in_flight[0]
        try:
            tokens = self._tokens_of(step)
        except StepMemoryError:
            return self._roll_back()
        self._in_flight.popleft()
        self._refused = None
        if step.scored:
            self._scheduler.scoring.note(step.scored, tokens)
        advanced = self._scheduler.update(step.chunks, tokens)
        if self._max_in_flight > 1:
            self._note_end(step)
        return StepEnd(step.chunks, advanced)

    def forget_time(self) -> None:
        """Nothing was to be done for a while."""
        self._ended_at = None

    def close(self) -> None:
        """Ends every rank. Steps on their way are given up if the executor's device is stuck."""
        self._is_closed = True
        if self._launching is not None:  # interrupted; on a stuck device, a launch may not end
            wait([self._launching], CLOSE_TIMEOUT_S)
        self._thread.shutdown(wait=self._max_in_flight == 1)
        self._executor.close()

    def _schedule(self) -> list[Chunk]:
        if self._max_in_flight == 1:
            return self._scheduler.schedule()
        if self._pace.should_draft(len(self._scheduler.running)):
            return [] if self._in_flight else self._schedule_with_drafts()
        if self._in_flight:
            return self._scheduler.schedule_behind(self._in_flight[-1].chunks)
        return self._scheduler.schedule(may_draft=False)

    def _schedule_with_drafts(self) -> list[Chunk]:
        chunks = self._scheduler.schedule()
        self._pace.note_outlook(outlook_of(chunks))
        return chunks

    def _submit(self, chunks: list[Chunk], is_beside: bool) -> None:
        batch = Batch.of(chunks, self._block_size)
        scored = self._scheduler.scoring.find(chunks)
        if scored:
            batch = batch.with_scored(scored)
        rows = sampling_rows(chunks)
        # First in the queue, then submitted: a Ctrl-C may come in between, and loses no step.
        step = InFlight(chunks, batch, rows, self._clock(), scored)
        self._in_flight.append(step)
        try:
            self._ensure_submitted(step, is_beside)
        except Exception:
            self._in_flight.remove(step)
            raise
        step.started = self._clock()
        if self._max_in_flight > 1:
            self._note_start()

    def _ensure_submitted(self, step: InFlight, is_beside: bool = False) -> None:
        """Python interrupts the main thread only. A step that it launches on a device is launched
        in another one, which goes on after a Ctrl-C; this waits for it, once more if called again.
        """
        if step.sample is not None:
            return
        if self._is_closed:
            raise EngineDeadError("the engine is closed")
        is_main = threading.current_thread() is threading.main_thread()
        if self._max_in_flight > 1 and is_main:
            self._launching = self._thread.submit(self._begin, step, False)
            self._launching.result()
        else:
            self._begin(step, is_beside)

    def _begin(self, step: InFlight, is_beside: bool) -> None:
        if step.sample is not None:
            return
        sample = self._executor.submit(step.batch, step.rows).result
        if self._max_in_flight == 1 and (is_beside or self._has_ranks):
            sample = self._thread.submit(sample).result
        step.sample = sample

    @staticmethod
    def _tokens_of(step: InFlight) -> list[SampledToken]:
        assert step.sample is not None, "the step is not submitted"
        return step.sample()

    def _roll_back(self) -> StepEnd:
        """After the first step in flight did not fit."""
        chunks = self._in_flight[0].chunks
        while len(self._in_flight) > 1:  # behind it: their tokens mean nothing
            with suppress(StepMemoryError):
                self._tokens_of(self._in_flight[1])
            del self._in_flight[1]
        self._in_flight.clear()
        self._ended_at = None
        refused, self._refused = self._refused, self._scheduler.roll_back(chunks)
        # Memory may be short for a moment: a single token is tried twice.
        is_too_large = refused is not None and refused is self._refused
        return StepEnd(chunks, did_fit=False, too_large=refused if is_too_large else None)

    def _note_start(self) -> None:
        """After a submission: the device waited, if nothing else was in flight."""
        if len(self._in_flight) == 1 and self._ended_at is not None:
            self._pace.note_gap(self._clock() - self._ended_at)

    def _note_end(self, step: InFlight) -> None:
        now, before = self._clock(), self._ended_at
        self._ended_at = now
        if step.batch.has_single_rows:
            self._pace.note_step(now - max(step.started, before or step.started))
        if self._in_flight and self._pace.note_behind():
            self._pace.note_outlook(self._scheduler.look_ahead(self._some(step.chunks)))

    def _some(self, chunks: list[Chunk]) -> list[Chunk]:
        """Others each time: a drafter that looks at a long prompt for the first time takes long."""
        start = self._num_asked % len(chunks)
        self._num_asked += NUM_ASKED
        return (chunks[start:] + chunks[:start])[:NUM_ASKED]
