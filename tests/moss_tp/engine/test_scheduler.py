"""Random schedules: every reply is what it would be alone, and the books agree after each step."""

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from moss_tp.engine.scheduler import Scheduler, to_batch
from moss_tp.engine.sequence import Sequence
from moss_tp.sampling_params import SamplingParams
from tests.moss_tp.engine.paged_fake import (
    EOS_ID,
    PagedFake,
    expected_reply,
    fake_config,
)

MAX_MODEL_LEN = 32


@dataclass(frozen=True)
class Plan:
    """A request, when it comes and, for some, when it is aborted."""

    prompt: list[int]
    max_tokens: int
    salt: str
    arrives_at: int
    aborts_at: int | None


# Few distinct tokens, and runs of them, so that prefixes are shared often.
prompts = st.one_of(
    st.integers(1, MAX_MODEL_LEN - 1).map(lambda n: [7] * n),
    st.lists(st.integers(0, 1), min_size=1, max_size=MAX_MODEL_LEN - 1),
)
plans = st.builds(
    Plan,
    prompt=prompts,
    max_tokens=st.integers(1, 40),
    salt=st.sampled_from(["", "", "other"]),
    arrives_at=st.integers(0, 30),
    aborts_at=st.none() | st.none() | st.integers(0, 60),
)


class Run:
    """A scheduler and a fake model, stepped together and checked after each step."""

    def __init__(
        self, block_size: int, num_spare_blocks: int, max_seqs: int, max_tokens: int
    ) -> None:
        config = fake_config(
            max_model_len=MAX_MODEL_LEN,
            block_size=block_size,
            max_num_seqs=max_seqs,
            max_num_batched_tokens=max(max_tokens, max_seqs),
        )
        num_blocks = -(-MAX_MODEL_LEN // block_size) + num_spare_blocks
        self.config = config
        self.scheduler = Scheduler(config, num_blocks)
        self.executor = PagedFake(num_blocks, block_size)
        self.arrivals: list[Sequence] = []

    def add(self, prompt: list[int], max_tokens: int, salt: str = "") -> Sequence:
        params = SamplingParams(max_tokens=max_tokens)
        name = str(len(self.arrivals))
        seq = Sequence(name, list(prompt), params, frozenset([EOS_ID]), salt)
        self.arrivals.append(seq)
        self.scheduler.add(seq)
        return seq

    def step(self) -> list[Sequence]:
        chunks = self.scheduler.schedule()
        assert bool(chunks) == self.scheduler.has_work
        assert len(chunks) <= self.config.max_num_seqs
        assert sum(chunk.num_tokens for chunk in chunks) <= self.config.max_num_batched_tokens
        self._check()
        advanced: list[Sequence] = []
        if chunks:
            sampled = self.executor.execute(to_batch(chunks, self.config.block_size))
            advanced = self.scheduler.update(chunks, sampled)
        self._check()
        return advanced

    def _check(self) -> None:
        self.scheduler.check_integrity()
        order = [*self.scheduler.running, *self.scheduler.waiting]
        assert order == sorted(order, key=self.arrivals.index), "not in order of arrival"

    def check_reply(self, seq: Sequence) -> None:
        prompt, reply = (
            seq.token_ids[: seq.num_prompt_tokens],
            seq.token_ids[seq.num_prompt_tokens :],
        )
        expected = expected_reply(prompt, seq.params.max_tokens, seq.stop_ids, MAX_MODEL_LEN)
        if seq.finish_reason == "abort":
            assert reply == expected[: len(reply)]
        else:
            assert reply == expected
            assert seq.finish_reason == ("stop" if reply[-1] in seq.stop_ids else "length")


@settings(max_examples=150, deadline=None)
@given(
    plans=st.lists(plans, min_size=1, max_size=12),
    block_size=st.integers(1, 5),
    num_spare_blocks=st.integers(0, 12),
    max_seqs=st.integers(1, 6),
    max_tokens=st.integers(1, 40),
)
def test_any_schedule_gives_the_reply_of_a_request_alone(
    plans: list[Plan], block_size: int, num_spare_blocks: int, max_seqs: int, max_tokens: int
) -> None:
    run = Run(block_size, num_spare_blocks, max_seqs, max_tokens)
    sequences: dict[int, Sequence] = {}
    for now in range(12 * MAX_MODEL_LEN * MAX_MODEL_LEN):
        for i, plan in enumerate(plans):
            if plan.arrives_at == now:
                sequences[i] = run.add(plan.prompt, plan.max_tokens, plan.salt)
            elif plan.aborts_at == now and i in sequences and not sequences[i].finish_reason:
                run.scheduler.abort(sequences[i])
        run.step()
        if now > 60 and not run.scheduler.has_work:
            break
    assert len(sequences) == len(plans)
    for seq in sequences.values():
        run.check_reply(seq)
    assert run.scheduler.block_manager.num_free == run.scheduler.block_manager.num_blocks


def test_prefill_is_chunked_and_decodes_go_on_meanwhile() -> None:
    run = Run(block_size=4, num_spare_blocks=20, max_seqs=4, max_tokens=8)
    decoding = run.add([1, 2], max_tokens=20)
    run.step()
    long = run.add(list(range(30)), max_tokens=2)
    advanced = [run.step() for _ in range(5)]
    assert all(decoding in step for step in advanced)
    # 7 of 8 tokens a step are left to 30 tokens of prompt.
    assert [long in step for step in advanced] == [False, False, False, False, True]


def test_the_youngest_is_preempted_and_says_nothing_twice() -> None:
    run = Run(block_size=4, num_spare_blocks=0, max_seqs=4, max_tokens=40)
    old, young = run.add([1] * 12, max_tokens=18), run.add([2] * 12, max_tokens=18)
    while run.scheduler.has_work:
        run.step()
    assert (old.num_preemptions, young.num_preemptions > 0) == (0, True)
    run.check_reply(young)
    assert young.num_cached_tokens == 0, "what it revives of its own is no cached prompt"


def test_a_stream_of_short_requests_starves_nobody() -> None:
    run = Run(block_size=4, num_spare_blocks=0, max_seqs=3, max_tokens=8)
    for _ in range(3):
        run.add([1, 2, 3], max_tokens=6)
    long = run.add([5] * 28, max_tokens=4)
    num_steps = 0
    while long.finish_reason is None:
        run.add([1, 2, 3], max_tokens=6)
        run.step()
        num_steps += 1
        # Three short ones before it, six tokens each, then its own chunks and tokens.
        assert num_steps < 40


def test_abort_frees_the_blocks_at_once() -> None:
    run = Run(block_size=4, num_spare_blocks=4, max_seqs=4, max_tokens=40)
    running, waiting = run.add([1] * 20, max_tokens=9), run.add([2] * 31, max_tokens=1)
    run.step()
    assert list(run.scheduler.waiting) == [waiting]
    run.scheduler.abort(running)
    run.scheduler.abort(waiting)
    assert run.scheduler.block_manager.num_free == run.executor.num_blocks
    assert not run.scheduler.has_work
    run.scheduler.check_integrity()
    assert running.finish_reason == waiting.finish_reason == "abort"


def test_a_reply_ends_at_max_model_len() -> None:
    run = Run(block_size=4, num_spare_blocks=0, max_seqs=1, max_tokens=40)
    seq = run.add([3] * 30, max_tokens=10)
    while run.scheduler.has_work:
        run.step()
    run.check_reply(seq)
    assert seq.num_tokens <= MAX_MODEL_LEN


def test_a_second_turn_computes_only_what_is_new() -> None:
    run = Run(block_size=4, num_spare_blocks=8, max_seqs=4, max_tokens=40)
    first = run.add([1] * 9, max_tokens=6)
    while run.scheduler.has_work:
        run.step()
    second = run.add([*first.token_ids, 5, 6], max_tokens=2)
    run.step()
    # The last token of the first turn never went through the model.
    assert second.num_cached_tokens == (first.num_tokens - 1) // 4 * 4
    assert len(run.executor.batches[-1].token_ids) == second.num_prompt_tokens - 12
