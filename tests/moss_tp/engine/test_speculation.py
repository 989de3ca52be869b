"""Speculation changes the speed of a reply, never its tokens; on a fake and a real model."""

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moss_tp import LLM, SamplingParams
from moss_tp.engine.scheduling.scheduler import Scheduler
from moss_tp.engine.scheduling.sequence import Sequence
from moss_tp.sampling.row import SampledToken
from tests.moss_tp.engine.scheduling.paged_fake import EOS_ID, copying_token
from tests.moss_tp.engine.scheduling.schedule_run import MAX_MODEL_LEN, Run


@dataclass(frozen=True)
class Plan:
    prompt: list[int]
    max_tokens: int
    stop_ids: frozenset[int]
    arrives_at: int
    aborts_at: int | None


plans = st.builds(
    Plan,
    prompt=st.lists(st.integers(0, 2), min_size=1, max_size=MAX_MODEL_LEN - 1),
    max_tokens=st.integers(1, 40),
    stop_ids=st.sampled_from([frozenset([EOS_ID]), frozenset([EOS_ID]), frozenset([1])]),
    arrives_at=st.integers(0, 20),
    aborts_at=st.none() | st.none() | st.integers(0, 40),
)


@settings(max_examples=100, deadline=None)
@given(
    plans=st.lists(plans, min_size=1, max_size=8),
    block_size=st.integers(1, 5),
    num_spare_blocks=st.integers(0, 12),
    max_seqs=st.integers(1, 5),
    max_tokens=st.integers(1, 40),
    num_speculative_tokens=st.integers(0, 9),
)
def test_any_schedule_of_drafts_gives_the_reply_of_a_request_alone(
    plans: list[Plan],
    block_size: int,
    num_spare_blocks: int,
    max_seqs: int,
    max_tokens: int,
    num_speculative_tokens: int,
) -> None:
    run = Run(
        block_size,
        num_spare_blocks,
        max_seqs,
        max_tokens,
        copying_token,
        num_speculative_tokens=num_speculative_tokens,
        device="cuda",  # a cheap row, so that much is drafted
    )
    sequences: dict[int, Sequence] = {}
    while run.now <= 20 or run.scheduler.has_work:
        for i, plan in enumerate(plans):
            if plan.arrives_at == run.now:
                sequences[i] = run.add(plan.prompt, plan.max_tokens, stop_ids=plan.stop_ids)
            elif plan.aborts_at == run.now and i in sequences and not sequences[i].finish_reason:
                run.scheduler.abort(sequences[i])
        run.step()
    for seq in sequences.values():
        run.check_reply(seq)
    assert run.scheduler.block_manager.num_free == run.scheduler.block_manager.num_blocks


def copying_run(
    num_speculative_tokens: int, scheduler: type[Scheduler] = Scheduler
) -> tuple[Run, list[Sequence]]:
    run = Run(
        4,
        num_spare_blocks=20,
        max_seqs=4,
        max_tokens=40,
        model=copying_token,
        scheduler=scheduler,
        num_speculative_tokens=num_speculative_tokens,
    )
    seqs = [run.add([0, 1, 2, 0, i], max_tokens=26) for i in range(3)]
    run.finish()
    return run, seqs


def test_drafts_save_steps_and_some_are_rejected() -> None:
    (plain, _), (drafting, seqs) = copying_run(0), copying_run(7)
    for seq in seqs:
        drafting.check_reply(seq)
    assert plain.scheduler.num_drafted == 0
    assert 0 < drafting.scheduler.num_accepted < drafting.scheduler.num_drafted
    assert len(drafting.executor.batches) < len(plain.executor.batches)


class AcceptAll(Scheduler):
    """A faulty scheduler that accepts every drafted token."""

    def _is_accepted(self, drafted: int | None, sampled: SampledToken) -> bool:
        return drafted is not None


def test_accepting_every_draft_is_noticed() -> None:
    _, seqs = copying_run(7, AcceptAll)
    _, correct = copying_run(0)
    assert [seq.token_ids for seq in seqs] != [seq.token_ids for seq in correct]


def test_a_stop_id_among_the_drafts_ends_the_reply_there() -> None:
    run = Run(4, 20, 4, 40, lambda history: len(history) % 4, num_speculative_tokens=7)
    seq = run.add([0, 1, 2, 3] * 3, max_tokens=18, stop_ids=frozenset([3]))
    run.finish()
    assert run.scheduler.num_drafted > 0
    assert (seq.token_ids[12:], seq.finish_reason) == ([0, 1, 2, 3], "stop")


def test_drafts_use_only_free_blocks_and_release_them() -> None:
    """Two sequences of 16 tokens fill all 8 blocks of 4: no draft preempts a sequence."""
    run = Run(4, 0, 4, 40, lambda history: 5, num_speculative_tokens=7)
    seqs = [run.add([5] * 12, max_tokens=4, salt=salt) for salt in "ab"]
    run.finish()
    assert run.scheduler.num_accepted > 0
    assert all(seq.num_preemptions == 0 for seq in seqs)


def test_a_large_batch_drafts_nothing() -> None:
    run = Run(4, 500, 64, 640, lambda history: 5, num_speculative_tokens=7)
    for i in range(64):
        run.add([5] * 12, max_tokens=4, salt=str(i))
    run.finish()
    assert run.scheduler.num_drafted == 0


# Repetitive prompts, for repetitive replies; greedy and seeded.
PROMPTS = [[(i % period) * 11 for i in range(20 + 9 * period)] for period in (3, 5, 8, 2, 13, 4)]
PARAMS = [
    SamplingParams(
        temperature=temperature,
        top_p=0.95,
        repetition_penalty=penalty,
        seed=seed,
        max_tokens=48,
        ignore_eos=True,
    )
    for seed, (temperature, penalty) in enumerate([(0, 1), (0.2, 1), (0.5, 1), (0, 1.02)] * 2)
][: len(PROMPTS)]


def engine(model: str, tp_size: int = 1, **settings: Any) -> LLM:
    return LLM(model, tp_size=tp_size, dtype="float32", max_model_len=192, **settings)


@pytest.fixture(scope="module")
def plain_replies(tiny_model: str) -> list[list[int]]:
    with engine(tiny_model, num_speculative_tokens=0) as llm:
        replies = [output.token_ids for output in llm.generate(PROMPTS, PARAMS)]
        assert llm.engine.scheduler.num_drafted == 0
    return replies


def accepted_of(llm: LLM) -> int:
    """The number of accepted tokens; checks that some drafted tokens were rejected."""
    scheduler = llm.engine.scheduler
    assert scheduler.num_accepted < scheduler.num_drafted
    return scheduler.num_accepted


@pytest.mark.parametrize("tp_size", [1, 2])
def test_speculated_replies_alone_and_batched(
    tiny_model: str, plain_replies: list[list[int]], tp_size: int
) -> None:
    with engine(tiny_model, tp_size) as llm:
        batched = [output.token_ids for output in llm.generate(PROMPTS, PARAMS)]
        alone = [
            llm.generate([prompt], params)[0].token_ids
            for prompt, params in zip(PROMPTS, PARAMS, strict=True)
        ]
        assert accepted_of(llm) > 20
    assert batched == alone == plain_replies


def test_speculated_replies_preempted(tiny_model: str, plain_replies: list[list[int]]) -> None:
    num_bytes = 14 * 2 * 2 * 16 * 64 * 4  # 14 blocks
    with engine(tiny_model, kv_cache_bytes=num_bytes, max_num_batched_tokens=64) as llm:
        replies = [output.token_ids for output in llm.generate(PROMPTS, PARAMS)]
        assert accepted_of(llm) > 0
        assert llm.engine.scheduler.num_preemptions > 0
    assert replies == plain_replies
