"""Requests in, one step at a time, deltas out. Joins Scheduler, Executor and detokenizing.

    start_step     schedules a step; with many texts to detokenize, or several ranks, the executor
                   runs it in a separate thread meanwhile; a GPU has it queued behind a running one
    take_deltas    detokenizes what the previous step sampled
    finish_step    waits for a step's tokens (or runs it now) and updates the sequences
    take_failures  requests that cannot go on

When a reply ends by its text (a stop string) or by `max_time`, one more step of it is already
running, on a GPU perhaps two; their tokens are dropped. May be used by one thread at a time.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from moss_tp.engine.check_request import check_request
from moss_tp.engine.detokenizer import ByteDecoder
from moss_tp.engine.outputs import TokenDelta
from moss_tp.engine.reply import Reply
from moss_tp.engine.request import EngineRequest
from moss_tp.engine.resume import resume
from moss_tp.engine.running.executor import Executor
from moss_tp.engine.scheduling.admission import Admission
from moss_tp.engine.scheduling.chunk import Chunk
from moss_tp.engine.scheduling.scheduler import Scheduler
from moss_tp.engine.scheduling.sequence import Sequence
from moss_tp.engine.stepper import Stepper
from moss_tp.engine_config import EngineConfig
from moss_tp.errors import (
    ConfigError,
    InvalidRequestError,
    MossError,
    QueueFullError,
    RequestMemoryError,
)

# Detokenizing this many texts takes as long as handing a step to a thread and back: 0.2 ms.
MANY_TEXTS = 16


@dataclass(frozen=True)
class ModelIds:
    """A model's token ids: how many there are, and those that end a reply, the usual one first."""

    vocab_size: int
    eos_ids: tuple[int, ...]


@dataclass
class _Request:
    seq: Sequence
    reply: Reply
    ends_at: float


class LLMEngine:
    """`config` is resolved. The engine owns `executor` and closes it. `clock` returns seconds."""

    def __init__(
        self,
        config: EngineConfig,
        executor: Executor,
        tokenizer: ByteDecoder,
        model: ModelIds,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        needed = -(-config.context_length // config.block_size)
        if executor.num_blocks < needed:
            raise ConfigError(
                f"{executor.num_blocks} KV blocks do not hold one sequence of "
                f"{config.context_length} tokens, which takes {needed}"
            )
        self.config = config
        self.executor = executor
        self.scheduler = Scheduler(config, executor.num_blocks, clock)
        self.num_steps = 0
        self.admission = Admission(self.scheduler, config)
        self._step_began: float | None = None  # when the last step ended, or None
        self._clock = clock
        self._tokenizer = tokenizer
        self._model = model
        self._requests: dict[str, _Request] = {}
        self._stepper = Stepper(self.scheduler, executor, config, clock)
        self._failures: list[tuple[str, MossError]] = []
        self._advanced: list[Sequence] = []  # got tokens that `take_deltas` has not returned

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_work or bool(self._advanced) or self._stepper.is_busy

    @property
    def forward_s(self) -> float:
        """See `Executor.forward_s`; the rest of a step's time is the host's."""
        return self.executor.forward_s

    @property
    def can_add(self) -> bool:
        """False while a request without a deadline would be refused."""
        bound = self.config.max_queue_s
        return not self._is_full and (bound == inf or self.admission.wait_s(1, 0) <= bound)

    def expected_wait_s(self) -> float:
        """How long a new request would wait, in seconds. May be called from any thread."""
        return self.admission.expected_wait_s()

    def add_request(self, request: EngineRequest) -> None:
        """Queues a request; `expire` gives it up once it waited for `deadline_s` seconds.

        Raises InvalidRequestError for values that are wrong and for an id that is running,
        ContextLengthError for a prompt that leaves no room for a reply, and QueueFullError,
        which a continuation never gets. A reply that `output_ids` end takes no step, unless
        logprobs of the prompt are wanted.
        """
        self.add_checked(self.check_request(request))

    def add_checked(self, request: EngineRequest) -> None:
        """`add_request` of what `check_request` returned."""
        if request.request_id in self._requests:
            raise InvalidRequestError(f"request {request.request_id!r} is running already")
        is_admitted = request.is_continuation or bool(request.output_ids)
        if not is_admitted:
            self._admit(request)
        if not self.has_work:
            self._step_began = None
            self._stepper.forget_time()
        params = request.params
        seq, reply = self._sequence(request), Reply(params, self._tokenizer)
        resume(seq, reply, request.output_ids, self.config.context_length)
        ends_at = inf if params.max_time is None else self._clock() + params.max_time
        self._requests[seq.request_id] = _Request(seq, reply, ends_at)
        if seq.finish_reason is not None:
            self._advanced.append(seq)
            return
        self.scheduler.add(seq, request.priority, request.deadline_s, is_admitted)
        if is_admitted:
            self.admission.forget()
        else:
            self.admission.note_added(seq, request.priority)

    def _admit(self, request: EngineRequest) -> None:
        """Raises QueueFullError if the request would end too late for its deadline."""
        bound = self.admission.limit_s(request.deadline_s, request.params.max_tokens)
        if not self._is_full and (bound == inf or not self.scheduler.has_work):
            return
        wait = self.admission.wait_s(len(request.prompt_ids), request.priority)
        if self._is_full:
            message = f"{self.config.max_waiting} requests are waiting already"
            raise QueueFullError(message, max(1.0, wait))
        if wait > bound:
            raise QueueFullError(
                f"the request would wait for {wait:.0f} s, and its limit is {max(0, bound):.0f} s",
                max(1.0, wait - bound),
            )

    @property
    def _is_full(self) -> bool:
        return len(self.scheduler.waiting) >= self.config.max_waiting

    def _sequence(self, request: EngineRequest) -> Sequence:
        params = request.params
        eos_ids = () if params.ignore_eos else self._model.eos_ids
        return Sequence(
            request.request_id,
            list(request.prompt_ids),
            params,
            stop_ids=frozenset((*params.stop_token_ids, *eos_ids)),
            salt=request.salt,
            num_shared_tokens=request.num_shared_tokens,
            is_next_pass=request.is_continuation,
            eos_id=eos_ids[0] if eos_ids else None,
        )

    def check_request(self, request: EngineRequest) -> EngineRequest:
        """Raises what `add_request` raises about the request itself; see `check_request`."""
        return check_request(request, self._model.vocab_size, self.config.context_length)

    def abort(self, request_id: str) -> None:
        """Drops a request and frees its blocks. Does nothing for one that is unknown or done."""
        request = self._requests.pop(request_id, None)
        if request is not None and request.seq.finish_reason is None:
            self.scheduler.abort(request.seq)
            self._note_end(request.seq)

    def expire(self) -> list[str]:
        """Drops the requests that waited in the queue past their deadline; returns their ids."""
        expired = [seq.request_id for seq in self.scheduler.expire()]
        if expired:
            self.admission.forget()
        for request_id in expired:
            del self._requests[request_id]
        return expired

    def step(self) -> list[tuple[str, TokenDelta]]:
        """Runs one whole step and returns its deltas."""
        self.start_step()
        self.finish_step()
        return self.take_deltas()

    def start_step(self) -> None:
        """Starts the next step, if there is work. Finishes a step that is still running first,
        where the executor takes one at a time."""
        if self.executor.max_in_flight == 1:
            self.finish_step()
        is_started = self._stepper.start(len(self._advanced) >= MANY_TEXTS)
        self.admission.forget()
        if is_started and self._step_began is None:
            self._step_began = self._clock()

    def take_deltas(self) -> list[tuple[str, TokenDelta]]:
        """A delta for every request that got tokens since the last call."""
        advanced, self._advanced = self._advanced, []
        return [
            (seq.request_id, self._delta(request))
            for seq in advanced
            if (request := self._requests.get(seq.request_id)) and request.seq is seq
        ]

    def finish_step(self) -> None:
        """Finishes the first of the running steps, if there is one.

        Raises EngineDeadError when a rank is lost; the engine cannot be used after that.
        """
        ended = self._stepper.finish()
        if ended is None:
            return
        if ended.did_fit:
            self.num_steps += 1
            self._note_step(ended.chunks)
        else:
            self._step_began = self._clock()
        self._advanced += ended.advanced
        self.admission.forget()
        if ended.too_large is not None:
            self._fail(ended.too_large)

    def take_failures(self) -> list[tuple[str, MossError]]:
        """The requests that have ended with an error since the last call, and their errors."""
        failures, self._failures = self._failures, []
        return failures

    def _fail(self, seq: Sequence) -> None:
        error = RequestMemoryError("the request does not fit into the device's memory")
        self._failures.append((seq.request_id, error))
        self.abort(seq.request_id)

    def _note_step(self, chunks: list[Chunk]) -> None:
        """While there is work, a step lasts until the next begins."""
        began, self._step_began = self._step_began, self._clock()
        if began is not None:
            lens = [chunk.num_known for chunk in chunks]
            num_decodes = lens.count(1)
            seconds = self._step_began - began
            self.admission.speeds.note_step(seconds, num_decodes, sum(lens) - num_decodes)

    def _note_end(self, seq: Sequence) -> None:
        self.admission.speeds.note_end(seq)
        self.admission.forget()

    def check_integrity(self) -> None:
        """Raises AssertionError when blocks or queues are inconsistent, or a request was lost."""
        self.scheduler.check_integrity()
        finished = {id(seq) for seq in self._advanced if seq.finish_reason is not None}
        num_finished = sum(id(request.seq) in finished for request in self._requests.values())
        num_scheduled = len(self.scheduler.running) + len(self.scheduler.waiting)
        num_known = len(self._requests)
        assert num_known == num_scheduled + num_finished, f"{num_known} requests are known"

    def close(self) -> None:
        """Ends every rank, after the running steps; it does not wait for a stuck device."""
        self._stepper.close()

    def _delta(self, request: _Request) -> TokenDelta:
        """The newly appended tokens, up to the one that ends the reply."""
        seq = request.seq
        reason = seq.finish_reason
        if reason is None and request.ends_at != inf and self._clock() >= request.ends_at:
            reason = "length"
        tokens = seq.take_new()
        ids = [token.token_id for token in tokens]
        num_tokens, text, reason = request.reply.add(ids, reason)
        if reason is not None:
            del self._requests[seq.request_id]
            if seq.finish_reason is None:
                self.scheduler.finish(seq, reason)
            self._note_end(seq)
            del ids[num_tokens:], tokens[num_tokens:]  # behind a stop string
        delta = TokenDelta(  # by position: by name it takes twice as long
            tuple(ids),
            text,
            reason,
            seq.num_prompt_tokens,
            seq.num_cached_tokens,
            () if seq.params.logprobs is None else tuple(tokens),
            seq.num_told_tokens,
        )
        if seq.has_untaken_scores:  # complete, for all of the prompt is computed
            return delta._replace(prompt_logprobs=seq.take_scores())
        return delta
