"""The same 24 requests by every way through an engine: they must give the same bytes.

A way is a function of a `Bench`, which makes engines of any settings on one loaded model; it
yields names of requests and what they replied, to be compared with what they reply alone.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from moss_tp import LLM
from moss_tp.engine.llm_engine import LLMEngine, ModelIds
from moss_tp.engine.outputs import FinishReason
from moss_tp.engine.request import EngineRequest
from moss_tp.engine.running.executor import Executor
from moss_tp.engine.running.step import Step
from moss_tp.engine.scheduling.batch import Batch
from moss_tp.sampling.row import SampledToken, SamplingRow
from moss_tp.sampling_params import SamplingParams

NUM_REQUESTS = 24
NUM_TOKENS = 21
MAX_MODEL_LEN = 224
RESUME_EVERY = 5


@dataclass
class Reply:
    """All that the engine tells of a reply; logprobs are of the 20 best tokens, to the bit."""

    tokens: list[SampledToken] = field(default_factory=list)
    text: str = ""
    finish_reason: FinishReason | None = None
    num_cached_tokens: int = 0


Replies = Iterator[tuple[int, int, Reply]]  # a request's number, the tokens it was told, the rest


class SharedExecutor:
    """An executor for several engines, one after the other. `num_blocks` can be fewer."""

    def __init__(self, executor: Executor, num_blocks: int) -> None:
        self._executor = executor
        self.num_blocks = num_blocks
        self.forward_s = 0.0

    @property
    def late_step(self) -> str | None:
        return self._executor.late_step

    @property
    def max_in_flight(self) -> int:
        return self._executor.max_in_flight

    def submit(self, batch: Batch, rows: Sequence[SamplingRow]) -> Step:
        return self._executor.submit(batch, rows)

    def watch(self, on_death: Callable[[str], None]) -> None:
        self._executor.watch(on_death)

    def close(self) -> None:
        """Leaves it to its owner."""


class Bench:
    """Engines on the model of `llm`, each with an empty cache. `alone` is what they should reply,
    None for what each request is replied alone."""

    def __init__(self, llm: LLM, alone: "list[Reply] | None" = None) -> None:
        self._llm = llm
        self.block_size = llm.engine.config.block_size
        self.requests = requests(llm.engine.config.context_length)
        self.alone = alone or self._alone()

    @contextmanager
    def engine(self, num_blocks: int | None = None, **changes: int) -> Iterator[LLMEngine]:
        own = self._llm.engine
        settings = {"num_speculative_tokens": 0, "max_num_seqs": NUM_REQUESTS, **changes}
        config = replace(own.config, **settings)  # type: ignore[arg-type]
        executor = SharedExecutor(own.executor, num_blocks or own.executor.num_blocks)
        ids = ModelIds(own._model.vocab_size, own._model.eos_ids)
        engine = LLMEngine(config, executor, self._llm.tokenizer, ids)
        yield engine
        engine.check_integrity()
        engine.close()

    def _alone(self) -> list[Reply]:
        """Each prompt in one chunk, without a cache, a batch, or a draft."""
        with self.engine() as engine:
            return [run(engine, [request])[0] for request in self.requests]


def requests(context_length: int) -> list[EngineRequest]:
    """Prompts of 1 to 170 tokens, some with a common stem, some periodic; all kinds of sampling."""
    stem = [(5 * i * i + 3) % 256 for i in range(90)]
    made = []
    for i in range(NUM_REQUESTS):
        length = 1 + 173 * i * 7 % 170
        own = [(7 * j * j + 11 * i) % 256 for j in range(length)]
        if i % 4 == 1:
            own = [*stem[: length // 2 + 1], *own[length // 2 + 1 :]]
        if i % 4 == 3:
            own = [(j % (2 + i % 5)) * 11 for j in range(length)]
        params = SamplingParams(
            temperature=(0, 0.7, 1.5)[i % 3],
            seed=i,
            top_k=(40, 0, 100)[i // 3 % 3],
            top_p=(0.8, 1, 0.95)[i // 2 % 3],
            repetition_penalty=(1, 1.02, 1.2)[i // 4 % 3],
            presence_penalty=(0, 0.5)[i // 5 % 2],
            frequency_penalty=(0, 0.3)[i // 6 % 2],
            min_tokens=(0, 12)[i // 7 % 2],
            max_tokens=NUM_TOKENS,
            ignore_eos=i % 8 != 0,
            logprobs=20,
        )
        made.append(EngineRequest(f"{i}", own, params, salt=f"{i}"))
    return made


def run(engine: LLMEngine, wanted: Sequence[EngineRequest]) -> list[Reply]:
    """All at the same time."""
    replies = {request.request_id: Reply() for request in wanted}
    for request in wanted:
        engine.add_request(request)
    while engine.has_work:
        for name, delta in engine.step():
            reply = replies[name]
            reply.tokens += delta.logprobs
            reply.text += delta.text
            reply.finish_reason = delta.finish_reason
            reply.num_cached_tokens = delta.num_cached_tokens
    return list(replies.values())


def told(bench: Bench) -> Iterator[tuple[int, int, EngineRequest]]:
    """Every request, cut off after every fifth token."""
    for i, (request, alone) in enumerate(zip(bench.requests, bench.alone, strict=True)):
        ids = [token.token_id for token in alone.tokens]
        for k in range(0, len(ids), RESUME_EVERY):
            name = f"{i}-{k}"
            yield i, k, replace(request, request_id=name, salt=name, output_ids=ids[:k])


def batched(bench: Bench) -> Replies:
    with bench.engine() as engine:
        replies = run(engine, bench.requests)
        assert engine.num_steps < 2 * NUM_TOKENS
    yield from _whole(replies)


def in_chunks_of_64(bench: Bench) -> Replies:
    yield from _in_chunks(bench, 64)


def in_chunks_of_100(bench: Bench) -> Replies:
    yield from _in_chunks(bench, 100)


def _in_chunks(bench: Bench, size: int) -> Replies:
    with bench.engine(max_num_batched_tokens=size, max_mixed_prefill_tokens=size) as engine:
        yield from _whole(run(engine, bench.requests))
        for i, request in enumerate(bench.requests):
            yield i, 0, run(engine, [replace(request, salt=f"alone {i}")])[0]


def cached_at_every_length(bench: Bench) -> Replies:
    """Every prefix of full blocks is computed by a request of its own, then found."""
    one = SamplingParams(max_tokens=1)
    for number, request in enumerate(bench.requests):
        if bench.block_size == 1 and number % 6:
            continue  # there are so many lengths
        lengths = range(bench.block_size, len(request.prompt_ids), bench.block_size)
        first, then = [], []
        for n in lengths:
            name = f"{number}-{n}"
            first.append(EngineRequest(name, request.prompt_ids[:n], one, salt=name))
            then.append(replace(request, request_id=name, salt=name))
        with bench.engine() as engine:
            run(engine, first)
            replies = run(engine, then)
        assert [reply.num_cached_tokens for reply in replies] == list(lengths)
        yield from ((number, 0, reply) for reply in replies)


def preempted(bench: Bench) -> Replies:
    num_blocks = -(-MAX_MODEL_LEN // bench.block_size) * 3 // 2
    for num_drafts in (0, 7):
        with bench.engine(num_blocks, num_speculative_tokens=num_drafts) as engine:
            yield from _whole(run(engine, bench.requests))
            assert engine.scheduler.num_preemptions > 0


def resumed(bench: Bench) -> Replies:
    """On an engine that knows nothing of them; once more after it computed them itself."""
    with bench.engine() as engine:
        for _ in range(2):
            yield from _resumed(engine, told(bench))


def resumed_on_cached_replies(bench: Bench) -> Replies:
    """The blocks of the told tokens were computed as a reply."""
    with bench.engine() as engine:
        run(engine, bench.requests)
        cut = [(i, k, replace(request, salt=f"{i}")) for i, k, request in told(bench)]
        yield from _resumed(engine, cut)


def speculated(bench: Bench) -> Replies:
    with bench.engine(num_speculative_tokens=7) as engine:
        for request in bench.requests:
            yield int(request.request_id), 0, run(engine, [request])[0]
        assert engine.scheduler.num_accepted > 0
    with bench.engine(num_speculative_tokens=7) as engine:
        yield from _whole(run(engine, bench.requests))
    with bench.engine(num_speculative_tokens=7) as engine:
        yield from _resumed(engine, told(bench))


def _resumed(engine: LLMEngine, cut: Iterable[tuple[int, int, EngineRequest]]) -> Replies:
    numbers, counts, wanted = zip(*cut, strict=True)
    return zip(numbers, counts, run(engine, wanted), strict=True)


def _whole(replies: Sequence[Reply]) -> Replies:
    return ((i, 0, reply) for i, reply in enumerate(replies))


WAYS: dict[str, Callable[[Bench], Replies]] = {
    way.__name__: way
    for way in (
        batched,
        in_chunks_of_64,
        in_chunks_of_100,
        cached_at_every_length,
        preempted,
        resumed,
        resumed_on_cached_replies,
        speculated,
    )
}


def differences(bench: Bench, replies: Replies) -> list[str]:
    """A line for each reply that is not, to the bit, what its request replies alone."""
    found = []
    for number, num_told, reply in replies:
        alone = bench.alone[number]
        expected = alone.tokens[num_told:]
        if reply.tokens != expected or reply.finish_reason != alone.finish_reason:
            pairs = zip(reply.tokens, expected, strict=False)
            at = next((i for i, (a, b) in enumerate(pairs) if a != b), len(expected))
            found.append(f"request {number} after {num_told} tokens differs at {num_told + at}")
        elif not alone.text.endswith(reply.text):
            found.append(f"request {number} after {num_told} tokens has another text")
    return found
