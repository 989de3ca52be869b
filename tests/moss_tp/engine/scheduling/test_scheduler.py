"""Random schedules: each reply equals the one computed alone, and integrity always holds."""

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from moss_tp.engine.scheduling.sequence import Sequence
from tests.moss_tp.engine.scheduling.schedule_run import MAX_MODEL_LEN, Run


@dataclass(frozen=True)
class Plan:
    """A request, the step when it arrives and, for some, the step when it is aborted."""

    prompt: list[int]
    max_tokens: int
    salt: str
    priority: int
    deadline_s: float | None
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
    priority=st.integers(-2, 2),
    deadline_s=st.none() | st.none() | st.integers(0, 20),
    arrives_at=st.integers(0, 30),
    aborts_at=st.none() | st.none() | st.integers(0, 60),
)


@settings(max_examples=150, deadline=None)
@given(
    plans=st.lists(plans, min_size=1, max_size=12),
    block_size=st.integers(1, 5),
    num_spare_blocks=st.integers(0, 12),
    max_seqs=st.integers(1, 6),
    max_tokens=st.integers(1, 40),
    max_mixed=st.integers(1, 40),
)
def test_any_schedule_gives_the_reply_of_a_request_alone(
    plans: list[Plan],
    block_size: int,
    num_spare_blocks: int,
    max_seqs: int,
    max_tokens: int,
    max_mixed: int,
) -> None:
    run = Run(
        block_size, num_spare_blocks, max_seqs, max_tokens, max_mixed_prefill_tokens=max_mixed
    )
    sequences: dict[int, Sequence] = {}
    for now in range(12 * MAX_MODEL_LEN * MAX_MODEL_LEN):
        for i, plan in enumerate(plans):
            if plan.arrives_at == now:
                sequences[i] = run.add(
                    plan.prompt, plan.max_tokens, plan.salt, plan.priority, plan.deadline_s
                )
            elif plan.aborts_at == now and i in sequences and not sequences[i].finish_reason:
                run.scheduler.abort(sequences[i])
        run.step()
        if now > 60 and not run.scheduler.has_work:
            break
    assert len(sequences) == len(plans)
    for seq in sequences.values():
        run.check_reply(seq)
    assert run.scheduler.block_manager.num_free == run.scheduler.block_manager.num_blocks


def test_prefill_is_chunked_while_decodes_continue() -> None:
    run = Run(block_size=4, num_spare_blocks=20, max_seqs=4, max_tokens=8)
    decoding = run.add([1, 2], max_tokens=20)
    run.step()
    long = run.add(list(range(30)), max_tokens=2)
    advanced = [run.step() for _ in range(5)]
    assert all(decoding in step for step in advanced)
    # The 30 tokens of the prompt get 7 of the 8 tokens of each step.
    assert [long in step for step in advanced] == [False, False, False, False, True]


def test_prompts_get_a_limited_share_of_mixed_steps_and_all_of_others() -> None:
    run = Run(4, num_spare_blocks=20, max_seqs=4, max_tokens=40, max_mixed_prefill_tokens=5)
    long = run.add([1] * 20, max_tokens=3)
    assert run.step() == [long]
    others = [run.add([2] * 6, max_tokens=1), run.add([3] * 6, max_tokens=1)]
    # Tokens 0..4, then 5 and 0..3, then 4 and 5.
    steps = [run.step() for _ in range(3)]
    assert steps == [[long], [long, others[0]], [others[1]]]


def test_a_prompt_does_not_stall_those_behind_it_in_order() -> None:
    run = Run(block_size=4, num_spare_blocks=20, max_seqs=4, max_tokens=8)
    long = run.add(list(range(30)), max_tokens=2, priority=-1)
    short = run.add([1], max_tokens=9)
    advanced = [run.step() for _ in range(6)]
    assert sum(long in step for step in advanced) > 0
    assert [short in step for step in advanced[3:]] == [True, True, True]


def test_the_youngest_is_preempted_and_repeats_no_token() -> None:
    run = Run(block_size=4, num_spare_blocks=0, max_seqs=4, max_tokens=40)
    old, young = run.add([1] * 12, max_tokens=18), run.add([2] * 12, max_tokens=18)
    run.finish()
    assert (old.num_preemptions, young.num_preemptions > 0) == (0, True)
    run.check_reply(young)
    assert young.num_cached_tokens == 0, "its own revived blocks do not count as cached prompt"


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
    run.finish()
    run.check_reply(seq)
    assert seq.num_tokens <= MAX_MODEL_LEN


def test_a_second_turn_computes_only_what_is_new() -> None:
    run = Run(block_size=4, num_spare_blocks=8, max_seqs=4, max_tokens=40)
    first = run.add([1] * 9, max_tokens=6)
    run.finish()
    second = run.add([*first.token_ids, 5, 6], max_tokens=2)
    run.step()
    # The last token of the first turn never went through the model.
    assert second.num_cached_tokens == (first.num_tokens - 1) // 4 * 4
    assert len(run.executor.batches[-1].token_ids) == second.num_prompt_tokens - 12
