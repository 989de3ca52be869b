"""LLMEngine for asyncio: one thread steps it, a request is an async iterator of deltas.

All use of the engine is a command in the inbox, which the thread runs between two steps; so an
abort takes effect before the next step. While a step runs, the tokens of the previous one are
detokenized and sent to the event loops, one wake-up each. The thread sleeps on a condition while
there is no work. It depends on neither Ray nor HTTP.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from math import inf

from moss_tp.engine.llm_engine import LLMEngine
from moss_tp.engine.load import EngineLoad, load_of
from moss_tp.engine.outputs import TokenDelta
from moss_tp.engine.request import EngineRequest
from moss_tp.engine.scheduling.waits import NO_WAITS, WaitCounts
from moss_tp.engine.stream import Stream, deliver
from moss_tp.errors import DeadlineExceededError, EngineDeadError, MossError

logger = logging.getLogger(__name__)

JOIN_S = 0.1
CLOSE_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class EngineStats:
    running: int
    waiting: int
    free_blocks: int
    num_blocks: int
    steps: int
    # Totals since the start; a prompt is counted when its request ends.
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    preemptions: int = 0
    waits: WaitCounts = NO_WAITS


class AsyncEngine:
    """Owns `engine` and closes it. `on_death(reason)` is called once, from the thread, when a
    rank is lost or a step fails, after every request got EngineDeadError.
    """

    def __init__(self, engine: LLMEngine, on_death: Callable[[str], None] | None = None) -> None:
        self._engine = engine
        self._on_death = on_death
        self._streams: dict[str, Stream] = {}
        self._inbox: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._lost_rank: str | None = None
        self._is_lost = threading.Event()
        self._death: str | None = None  # why the engine no longer serves
        self._num_prompt_tokens = 0
        self._num_cached_tokens = 0
        self._num_output_tokens = 0
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="moss-engine", daemon=True)
        self._thread.start()
        engine.executor.watch(self._note_loss)

    @property
    def is_alive(self) -> bool:
        """False as soon as the engine dies or starts to close."""
        return self._death is None and not self._is_closing

    @property
    def late_step(self) -> str | None:
        """See `Executor.late_step`."""
        return self._engine.executor.late_step

    def stats(self) -> EngineStats:
        scheduler = self._engine.scheduler
        return EngineStats(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            free_blocks=scheduler.block_manager.num_free,
            num_blocks=scheduler.block_manager.num_blocks,
            steps=self._engine.num_steps,
            prompt_tokens=self._num_prompt_tokens,
            cached_tokens=self._num_cached_tokens,
            output_tokens=self._num_output_tokens,
            preemptions=scheduler.num_preemptions,
            waits=scheduler.waiting.waits.counts(),
        )

    def expected_wait_s(self) -> float:
        """How long a request would wait that arrived now. Takes milliseconds with a long queue;
        may be called from any thread."""
        return self._engine.expected_wait_s()

    def load(self) -> EngineLoad:
        """What there is to do; may be called from any thread."""
        engine = self._engine
        return load_of(engine.scheduler, engine.admission.speeds, engine.config.max_num_seqs)

    async def generate(self, request: EngineRequest) -> AsyncGenerator[TokenDelta, None]:
        """The deltas of one request. Closing or cancelling the iterator aborts it within a step.

        The first `anext` raises InvalidRequestError, ContextLengthError or QueueFullError, or
        DeadlineExceededError after `deadline_s` in the queue. EngineDeadError and
        RequestMemoryError may come any time.
        """
        request = self._engine.check_request(request)
        stream = Stream()
        is_done = False
        self._post(lambda: self._add(request, stream))
        try:
            while not is_done:
                delta = await stream.get()
                is_done = delta.finish_reason is not None
                yield delta
        finally:
            if not is_done:  # aborting a request that failed does nothing
                self._post(lambda: self._abort(request.request_id, stream))

    def close(self) -> None:
        """Ends the thread after the running steps, and every rank. Idempotent.

        Steps of a device that is stuck are given up; on the CPU, a step ends or its limit does.
        """
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        may_be_stuck = self._engine.executor.max_in_flight > 1
        give_up_at = time.monotonic() + (CLOSE_TIMEOUT_S if may_be_stuck else inf)
        while self._thread.is_alive() and not self._is_lost.is_set():
            if time.monotonic() > give_up_at:
                break
            self._thread.join(JOIN_S)
        else:  # nothing ends a thread that launches a step on a device that is stuck
            self._thread.join(CLOSE_TIMEOUT_S)
        self._engine.close()  # fails the group if a step in flight does not end
        self._thread.join(JOIN_S)

    def _note_loss(self, reason: str) -> None:
        """The executor's watcher, in any thread."""
        self._is_lost.set()
        self._post(lambda: self._lose_rank(reason))

    def _post(self, command: Callable[[], None]) -> None:
        """Queues `command` for the thread; once the thread has ended, runs it in the caller's."""
        with self._changed:
            if self._death is None:
                self._inbox.append(command)
                self._changed.notify()
                return
        command()

    def _run(self) -> None:
        reason = "the engine is closed"
        try:
            while self._run_commands():
                self._drop(self._engine.expire())
                self._engine.start_step()
                self._deliver(self._engine.take_deltas())
                self._engine.finish_step()
                self._fail(self._engine.take_failures())
        except EngineDeadError as error:
            reason = str(error)
            logger.error("the engine died: %s", reason)
        except Exception as error:
            reason = repr(error)
            logger.exception("the engine died")
        try:
            # The tokens of the last finished step are still delivered.
            self._deliver(self._engine.take_deltas())
        finally:
            self._end(reason)

    def _run_commands(self) -> bool:
        """Runs all commands, sleeps while there is no work. False when the engine is closing."""
        while True:
            while self._inbox:
                self._inbox.popleft()()
            if self._lost_rank is not None:
                raise EngineDeadError(self._lost_rank)
            if not self._engine.has_work:
                self._engine.check_integrity()
            with self._changed:
                if self._is_closing:
                    return False
                if self._engine.has_work:
                    return True
                if not self._inbox:
                    self._changed.wait()

    def _add(self, request: EngineRequest, stream: Stream) -> None:
        if self._death is not None:
            deliver([(stream, EngineDeadError(self._death))])
            return
        try:
            self._engine.add_checked(request)
        except MossError as error:
            deliver([(stream, error)])
        else:
            self._streams[request.request_id] = stream

    def _abort(self, request_id: str, stream: Stream) -> None:
        """Checks the stream too: the id may belong to a newer request by now."""
        if self._streams.get(request_id) is stream:
            del self._streams[request_id]
            self._engine.abort(request_id)

    def _lose_rank(self, reason: str) -> None:
        self._lost_rank = reason

    def _drop(self, request_ids: Sequence[str]) -> None:
        error = DeadlineExceededError("the deadline passed in the queue")
        deliver([(self._streams.pop(request_id), error) for request_id in request_ids])

    def _fail(self, failures: Sequence[tuple[str, MossError]]) -> None:
        deliver([(self._streams.pop(request_id), error) for request_id, error in failures])

    def _deliver(self, deltas: Sequence[tuple[str, TokenDelta]]) -> None:
        for _, delta in deltas:
            self._count(delta)
        undelivered = set(deliver([(self._streams[name], delta) for name, delta in deltas]))
        for request_id, delta in deltas:
            stream = self._streams[request_id]
            if delta.finish_reason is not None:
                del self._streams[request_id]
            elif stream in undelivered:
                self._abort(request_id, stream)

    def _count(self, delta: TokenDelta) -> None:
        self._num_output_tokens += len(delta.token_ids)
        if delta.finish_reason is not None:
            self._num_prompt_tokens += delta.num_prompt_tokens
            self._num_cached_tokens += delta.num_cached_tokens

    def _end(self, reason: str) -> None:
        with self._changed:
            self._death = reason
            # From now on `_post` runs commands in the readers' threads.
            commands, streams = list(self._inbox), list(self._streams.values())
            self._inbox.clear()
            self._streams.clear()
        for command in commands:
            command()
        deliver([(stream, EngineDeadError(reason)) for stream in streams])
        if self._on_death is not None and not self._is_closing:
            self._on_death(reason)
