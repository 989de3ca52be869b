"""Requests through the engine: tokens, text, limits, and sampling rows."""

import pytest

from moss_tp.engine.llm_engine import LLMEngine, ModelIds
from moss_tp.engine.outputs import TokenDelta
from moss_tp.engine.request import EngineRequest
from moss_tp.errors import (
    ConfigError,
    ContextLengthError,
    InvalidRequestError,
    QueueFullError,
)
from moss_tp.sampling_params import SamplingParams
from tests.moss_tp.engine.scheduling.paged_fake import (
    EOS_ID,
    FAKE_IDS,
    VOCAB_SIZE,
    FakeTokenizer,
    PagedFake,
    expected_reply,
    fake_config,
    fake_engine,
)

GREEDY = SamplingParams(temperature=0, max_tokens=20)


def run(engine: LLMEngine) -> dict[str, list[TokenDelta]]:
    deltas: dict[str, list[TokenDelta]] = {}
    while engine.has_work:
        for request_id, delta in engine.step():
            deltas.setdefault(request_id, []).append(delta)
        engine.check_integrity()
    return deltas


def tokens(deltas: list[TokenDelta]) -> list[int]:
    return [token_id for delta in deltas for token_id in delta.token_ids]


def test_deltas_are_the_reply_and_only_the_last_is_final() -> None:
    engine = fake_engine()
    engine.add_request(EngineRequest("a", [1, 2, 3], GREEDY))
    deltas = run(engine)["a"]
    expected = expected_reply([1, 2, 3], 20, frozenset([EOS_ID]), 32)
    assert tokens(deltas) == expected
    assert [d.finish_reason for d in deltas] == [None] * (len(deltas) - 1) + ["length"]
    assert "".join(d.text for d in deltas) == FakeTokenizer().decode_bytes(expected).decode()
    assert {d.num_prompt_tokens for d in deltas} == {3}


def test_a_stop_id_ends_the_reply_and_is_not_shown() -> None:
    reply = expected_reply([1, 2, 3], 20, frozenset(), 32)
    engine = fake_engine()
    engine.add_request(
        EngineRequest("a", [1, 2, 3], SamplingParams(stop_token_ids=(reply[4],), max_tokens=20))
    )
    deltas = run(engine)["a"]
    assert tokens(deltas) == reply[:5]
    assert deltas[-1].finish_reason == "stop"
    assert "".join(d.text for d in deltas) == FakeTokenizer().decode_bytes(reply[:4]).decode()


def test_stops_are_blocked_below_min_tokens_and_eos_only_where_it_stops() -> None:
    executor = PagedFake(16, 4)
    engine = fake_engine(executor)
    engine.add_request(
        EngineRequest("a", [1], SamplingParams(min_tokens=2, max_tokens=4, stop_token_ids=(95,)))
    )
    engine.add_request(
        EngineRequest("b", [1], SamplingParams(min_tokens=2, max_tokens=4, ignore_eos=True))
    )
    run(engine)
    blocked = [[row.blocked_ids for row in rows] for rows in executor.rows]
    assert blocked == [[(95, EOS_ID), ()], [(95, EOS_ID), ()], [(), ()], [(), ()]]


def test_every_eos_id_of_a_model_ends_a_reply_and_the_first_is_the_regulated_one() -> None:
    executor = PagedFake(16, 4)
    ids = ModelIds(FAKE_IDS.vocab_size, (EOS_ID, 95))
    engine = LLMEngine(fake_config(), executor, FakeTokenizer(), ids)
    engine.add_request(EngineRequest("a", [1], SamplingParams(min_tokens=2, max_tokens=3)))
    engine.add_request(EngineRequest("b", [1], SamplingParams(max_tokens=1, ignore_eos=True)))
    assert [seq.stop_ids for seq in engine.scheduler.waiting] == [{EOS_ID, 95}, set()]
    run(engine)
    assert executor.rows[0][0].blocked_ids == (95, EOS_ID)
    assert [row.eos_id for row in executor.rows[0]] == [EOS_ID, None]


def test_every_token_has_its_own_position_even_after_preemption() -> None:
    executor = PagedFake(num_blocks=8, block_size=4)
    engine = fake_engine(executor)
    for name in ("old", "young"):
        params = SamplingParams(seed=len(name), max_tokens=18, ignore_eos=True)
        engine.add_request(EngineRequest(name, [len(name)] * 12, params))
    _, young = engine.scheduler.waiting
    replies = run(engine)
    assert young.num_preemptions > 0
    assert tokens(replies["young"]) == expected_reply([5] * 12, 18, frozenset(), 32)
    drawn = [(row.seed, row.position) for rows in executor.rows for row in rows]
    assert sorted(drawn) == [(seed, position) for seed in (3, 5) for position in range(18)]


def test_a_seed_comes_from_the_request_or_is_drawn_once() -> None:
    executor = PagedFake(16, 4)
    engine = fake_engine(executor)
    for name, seed in {"a": 7, "b": 7, "c": None, "d": None}.items():
        engine.add_request(
            EngineRequest(name, [1], SamplingParams(seed=seed, max_tokens=3, ignore_eos=True))
        )
    run(engine)
    seeds = {tuple(row.seed for row in rows) for rows in executor.rows}
    ((a, b, c, d),) = seeds
    assert a == b == 7
    assert len({a, c, d}) == 3


def test_a_stop_string_ends_a_reply_and_frees_its_blocks() -> None:
    """It begins with the fourth token and is complete with the sixth."""
    reply = expected_reply([1, 2, 3], 20, frozenset([EOS_ID]), 32)
    text = FakeTokenizer().decode_bytes(reply).decode()
    engine = fake_engine()
    engine.add_request(
        EngineRequest("a", [1, 2, 3], SamplingParams(stop=(text[3:6],), max_tokens=20))
    )
    deltas = run(engine)["a"]
    assert tokens(deltas) == reply[:6]
    assert "".join(delta.text for delta in deltas) == text[:3]
    assert [delta.finish_reason for delta in deltas] == [None] * 5 + ["stop"]
    assert engine.scheduler.block_manager.num_free == 16


def test_max_time_ends_a_reply_at_the_next_token() -> None:
    now = [100.0]
    executor = PagedFake(16, 4)
    engine = LLMEngine(fake_config(), executor, FakeTokenizer(), FAKE_IDS, lambda: now[0])
    reply = expected_reply([1], 20, frozenset([EOS_ID]), 32)
    held = FakeTokenizer().decode_bytes(reply[1:3]).decode() + "?"
    for name, max_time in {"timed": 10, "free": None}.items():
        params = SamplingParams(max_time=max_time, max_tokens=20, stop=(held,))
        engine.add_request(EngineRequest(name, [1], params))
    engine.step()
    engine.step()
    now[0] += 10
    late = dict(engine.step())
    assert [late[name].finish_reason for name in ("timed", "free")] == ["length", None]
    assert late["timed"].text == held[:-1], "the text held back for the stop string is shown"
    assert tokens(run(engine)["free"]) == reply[3:]


def test_regulation_acts_on_eos_where_it_ends_the_reply() -> None:
    executor = PagedFake(16, 4)
    engine = fake_engine(executor)
    for name, ignore_eos in {"a": False, "b": True}.items():
        params = SamplingParams(ignore_eos=ignore_eos, max_tokens=1, length_penalty=2)
        engine.add_request(EngineRequest(name, [1], params))
    run(engine)
    assert [row.eos_id for row in executor.rows[0]] == [EOS_ID, None]


def test_several_replies_are_several_requests() -> None:
    with pytest.raises(InvalidRequestError, match=r"^n: "):
        fake_engine().add_request(EngineRequest("a", [1], SamplingParams(n=2)))


def test_a_bias_outside_the_vocabulary_is_rejected() -> None:
    engine = fake_engine()
    engine.check_request(
        EngineRequest("a", [1], SamplingParams(logit_bias=((VOCAB_SIZE - 1, 1.0),)))
    )
    with pytest.raises(InvalidRequestError, match="outside the vocabulary"):
        engine.check_request(
            EngineRequest("a", [1], SamplingParams(logit_bias=((VOCAB_SIZE, 1.0),)))
        )


def test_the_second_turn_reports_its_cached_prefix_unless_the_salt_differs() -> None:
    engine = fake_engine()
    for name, salt in {"first": "x", "again": "x", "other": "y"}.items():
        engine.add_request(EngineRequest(name, [4] * 17, SamplingParams(max_tokens=1), salt))
        assert run(engine)[name][0].num_cached_tokens == (16 if name == "again" else 0)


@pytest.mark.parametrize(
    ("prompt", "stop_ids", "error"),
    [
        ([], (), InvalidRequestError),
        ([1] * 32, (), ContextLengthError),
        ([VOCAB_SIZE], (), InvalidRequestError),
        ([-1], (), InvalidRequestError),
        ([1], (VOCAB_SIZE,), InvalidRequestError),
    ],
)
def test_a_request_that_cannot_run_is_rejected(
    prompt: list[int], stop_ids: tuple[int, ...], error: type[Exception]
) -> None:
    engine = fake_engine()
    with pytest.raises(error):
        engine.add_request(EngineRequest("a", prompt, SamplingParams(stop_token_ids=stop_ids)))
    assert not engine.has_work
    engine.check_integrity()


def test_a_prompt_that_leaves_room_for_one_token_runs() -> None:
    engine = fake_engine()
    engine.add_request(EngineRequest("a", [1] * 31, GREEDY))
    assert [d.finish_reason for d in run(engine)["a"]] == ["length"]


def test_the_queue_is_bounded_and_ids_are_unique() -> None:
    engine = fake_engine(max_waiting=2)
    engine.add_request(EngineRequest("a", [1], GREEDY))
    with pytest.raises(InvalidRequestError, match="running already"):
        engine.add_request(EngineRequest("a", [1], GREEDY))
    engine.add_request(EngineRequest("b", [1], GREEDY))
    with pytest.raises(QueueFullError):
        engine.add_request(EngineRequest("c", [1], GREEDY))
    engine.step()
    engine.add_request(EngineRequest("c", [1], GREEDY))


def test_a_smaller_priority_is_served_earlier_within_the_range() -> None:
    engine = fake_engine(max_num_seqs=1)
    for name, priority in {"a": 0, "b": 5, "c": -5}.items():
        engine.add_request(EngineRequest(name, [1], GREEDY, priority=priority))
    assert list(run(engine)) == ["c", "a", "b"]
    with pytest.raises(InvalidRequestError, match="priority"):
        engine.add_request(EngineRequest("d", [1], GREEDY, priority=101))


def test_a_continuation_is_never_rejected_and_goes_first() -> None:
    engine = fake_engine(max_waiting=1, max_num_seqs=1)
    engine.add_request(EngineRequest("running", [1], GREEDY))
    engine.step()
    engine.add_request(EngineRequest("waiting", [1], GREEDY, priority=-100))
    with pytest.raises(QueueFullError):
        engine.add_request(EngineRequest("rejected", [1], GREEDY, priority=-100))
    for name in ("second pass", "another"):
        engine.add_request(EngineRequest(name, [1], GREEDY, is_continuation=True))
    assert list(run(engine)) == ["running", "second pass", "another", "waiting"]


def test_waiting_continuations_count_toward_the_bound_of_the_queue() -> None:
    engine = fake_engine(max_waiting=1, max_num_seqs=1)
    for name in ("a", "b"):
        engine.add_request(EngineRequest(name, [1], GREEDY, is_continuation=True))
    with pytest.raises(QueueFullError):
        engine.add_request(EngineRequest("c", [1], GREEDY))


def test_salts_share_the_blocks_wholly_within_the_shared_tokens() -> None:
    engine = fake_engine()
    one = SamplingParams(max_tokens=1)
    for name, salt in {"first": "x", "other": "y", "again": "x"}.items():
        engine.add_request(EngineRequest(name, [4] * 17, one, salt, num_shared_tokens=11))
        cached = {"first": 0, "other": 8, "again": 16}[name]
        assert run(engine)[name][0].num_cached_tokens == cached


@pytest.mark.parametrize("num_shared_tokens", [-1, 4])
def test_shared_tokens_outside_the_prompt_are_rejected(num_shared_tokens: int) -> None:
    engine = fake_engine()
    with pytest.raises(InvalidRequestError, match="num_shared_tokens"):
        engine.add_request(
            EngineRequest("a", [1, 2, 3], GREEDY, num_shared_tokens=num_shared_tokens)
        )
    engine.add_request(EngineRequest("a", [1, 2, 3], GREEDY, num_shared_tokens=3))


def test_an_expired_request_is_removed() -> None:
    engine = fake_engine()
    engine.add_request(EngineRequest("a", [1], GREEDY, deadline_s=0))
    engine.add_request(EngineRequest("b", [1], GREEDY, deadline_s=60))
    assert engine.expire() == ["a"]
    engine.check_integrity()
    assert list(run(engine)) == ["b"]


def test_abort_frees_the_blocks_and_ignores_unknown_ids() -> None:
    engine = fake_engine()
    engine.add_request(EngineRequest("a", [1] * 9, GREEDY))
    engine.step()
    engine.abort("a")
    assert engine.scheduler.block_manager.num_free == 16
    assert engine.step() == []
    engine.abort("a")
    engine.abort("unknown")
    engine.check_integrity()


def test_too_few_blocks_for_one_sequence_are_rejected() -> None:
    with pytest.raises(ConfigError, match="7 KV blocks do not hold"):
        fake_engine(PagedFake(num_blocks=7, block_size=4))


def test_close_closes_the_executor() -> None:
    executor = PagedFake(16, 4)
    fake_engine(executor).close()
    assert executor.is_closed
