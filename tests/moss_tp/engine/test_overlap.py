"""Detokenizing overlaps with the next step: what this changes, and what it must not."""

import threading
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moss_tp.engine import llm_engine
from moss_tp.engine.llm_engine import LLMEngine
from moss_tp.engine.outputs import TokenDelta
from moss_tp.engine.request import EngineRequest
from moss_tp.engine.scheduling.batch import Batch
from moss_tp.sampling.row import SampledToken, SamplingRow
from moss_tp.sampling_params import SamplingParams
from tests.moss_tp.engine.scheduling.paged_fake import (
    EOS_ID,
    FakeTokenizer,
    PagedFake,
    expected_reply,
    fake_engine,
)


class GatedFake(PagedFake):
    """Computes a step only once the test opens the gate."""

    def __init__(self) -> None:
        super().__init__(num_blocks=16, block_size=4)
        self.gate = threading.Semaphore(0)

    def execute(self, batch: Batch, rows: Sequence[SamplingRow] = ()) -> list[SampledToken]:
        assert self.gate.acquire(timeout=30)
        return super().execute(batch, rows)


class ThreadsFake(PagedFake):
    """Records the thread of each step."""

    def __init__(self) -> None:
        super().__init__(num_blocks=16, block_size=4)
        self.threads: list[int] = []

    def execute(self, batch: Batch, rows: Sequence[SamplingRow] = ()) -> list[SampledToken]:
        self.threads.append(threading.get_ident())
        return super().execute(batch, rows)


def overlapped(engine: LLMEngine) -> dict[str, list[TokenDelta]]:
    deltas: dict[str, list[TokenDelta]] = {}
    while engine.has_work:
        engine.start_step()
        for request_id, delta in engine.take_deltas():
            deltas.setdefault(request_id, []).append(delta)
        engine.check_integrity()
        engine.finish_step()
        engine.check_integrity()
    return deltas


@pytest.fixture(autouse=True, params=[0, 10**9], ids=["thread", "direct"])
def both_sides_of_many_texts(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llm_engine, "MANY_TEXTS", request.param)


def test_few_texts_take_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm_engine, "MANY_TEXTS", 2)
    executor = ThreadsFake()
    engine = fake_engine(executor)
    for name, max_tokens in (("a", 4), ("b", 6)):
        engine.add_request(EngineRequest(name, [1, 2, 3], SamplingParams(max_tokens=max_tokens)))
    overlapped(engine)
    here, others = threading.get_ident(), executor.threads[1:-1]
    assert {executor.threads[0], executor.threads[-1]} == {here}, "no sequence advanced, then one"
    assert others
    assert here not in others


def test_with_several_ranks_no_step_runs_in_the_callers_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C there would interrupt rank 0 in a step that the workers have started."""
    monkeypatch.setattr(llm_engine, "MANY_TEXTS", 10**9)
    executor = ThreadsFake()
    engine = fake_engine(executor, tp_size=2)
    engine.add_request(EngineRequest("a", [1, 2, 3], SamplingParams(max_tokens=3)))
    overlapped(engine)
    assert executor.threads
    assert threading.get_ident() not in executor.threads


def test_the_text_of_a_step_is_ready_before_the_next_one_is_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(llm_engine, "MANY_TEXTS", 0)
    executor = GatedFake()
    engine = fake_engine(executor)
    engine.add_request(EngineRequest("a", [1, 2, 3], SamplingParams(temperature=0, max_tokens=3)))
    executor.gate.release()
    engine.start_step()
    assert engine.take_deltas() == []
    engine.finish_step()
    engine.start_step()  # waits at the gate
    ((name, delta),) = engine.take_deltas()
    assert (name, list(delta.token_ids)) == ("a", expected_reply([1, 2, 3], 1, frozenset(), 32))
    assert len(executor.batches) == 1
    executor.gate.release(2)
    engine.finish_step()
    assert len(executor.batches) == 2


def test_a_reply_that_a_stop_string_ends_drops_the_running_step() -> None:
    reply = expected_reply([1, 2, 3], 20, frozenset([EOS_ID]), 32)
    text = FakeTokenizer().decode_bytes(reply).decode()
    executor = PagedFake(num_blocks=16, block_size=4)
    engine = fake_engine(executor)
    engine.add_request(
        EngineRequest("a", [1, 2, 3], SamplingParams(stop=(text[3:6],), max_tokens=20))
    )
    deltas = overlapped(engine)["a"]
    assert [token for delta in deltas for token in delta.token_ids] == reply[:6]
    assert "".join(delta.text for delta in deltas) == text[:3]
    assert deltas[-1].finish_reason == "stop"
    assert len(executor.batches) == 7, "one step was running when the text was complete"
    assert engine.scheduler.block_manager.num_free == 16


def test_an_abort_while_a_step_is_running() -> None:
    engine = fake_engine()
    engine.add_request(EngineRequest("a", [1, 2, 3], SamplingParams(max_tokens=20)))
    engine.add_request(EngineRequest("b", [1, 2, 3], SamplingParams(max_tokens=2, temperature=0)))
    engine.step()
    engine.start_step()
    engine.abort("a")
    engine.add_request(
        EngineRequest("a", [7, 7], SamplingParams(max_tokens=2, temperature=0, ignore_eos=True))
    )
    deltas = overlapped(engine)
    again = [token for delta in deltas["a"] for token in delta.token_ids]
    assert again == expected_reply([7, 7], 2, frozenset(), 32)


def test_a_finished_request_can_be_aborted_before_its_deltas_are_taken() -> None:
    engine = fake_engine()
    engine.add_request(EngineRequest("a", [1], SamplingParams(max_tokens=1)))
    engine.start_step()
    engine.finish_step()
    engine.check_integrity()
    engine.abort("a")
    assert engine.take_deltas() == []
    assert not engine.has_work
    engine.check_integrity()


def test_integrity_notices_a_lost_request() -> None:
    engine = fake_engine()
    engine.add_request(EngineRequest("a", [1], SamplingParams(max_tokens=1)))
    engine.start_step()
    engine.finish_step()
    engine._advanced.clear()
    with pytest.raises(AssertionError, match="1 requests are known"):
        engine.check_integrity()


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 5), min_size=1, max_size=12),
            st.integers(1, 15),
            st.none() | st.tuples(st.integers(0, 10), st.integers(1, 4)),
        ),
        min_size=1,
        max_size=6,
    ),
    st.integers(8, 16),
)
def test_overlapped_steps_give_the_deltas_of_single_steps(
    requests: list[tuple[list[int], int, tuple[int, int] | None]], num_blocks: int
) -> None:
    replies = []
    for run in (overlapped, one_by_one):
        engine = fake_engine(PagedFake(num_blocks, block_size=4))
        for index, (prompt, max_tokens, stop) in enumerate(requests):
            reply = expected_reply(prompt, 32, frozenset([EOS_ID]), 32)
            text = FakeTokenizer().decode_bytes(reply).decode(errors="replace")
            stops = (text[stop[0] : sum(stop)],) if stop and text[stop[0] : sum(stop)] else ()
            params = SamplingParams(temperature=0, max_tokens=max_tokens, stop=stops)
            engine.add_request(EngineRequest(str(index), prompt, params))
        deltas = run(engine)
        replies.append(
            {
                name: (
                    [token for delta in own for token in delta.token_ids],
                    "".join(delta.text for delta in own),
                    own[-1].finish_reason,
                )
                for name, own in deltas.items()
            }
        )
        assert engine.scheduler.block_manager.num_free == num_blocks
        engine.close()
    assert replies[0] == replies[1]


def one_by_one(engine: LLMEngine) -> dict[str, list[TokenDelta]]:
    deltas: dict[str, list[TokenDelta]] = {}
    while engine.has_work:
        for request_id, delta in engine.step():
            deltas.setdefault(request_id, []).append(delta)
    return deltas
