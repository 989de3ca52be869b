"""An engine of known speeds on a clock of its own: who is refused, and when the others start."""

import pickle
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moss_tp.engine.scheduling.sequence import Sequence
from moss_tp.engine.scheduling.speeds import NUM_STEPS, REPLY_TOKENS_AT_START
from moss_tp.engine.scheduling.waiting_queue import WaitingQueue
from moss_tp.errors import QueueFullError
from moss_tp.sampling_params import SamplingParams
from tests.moss_tp.engine.scheduling.timed_server import PARAMS, PROMPT_TOKEN_S, STEP_S, Server


def test_an_idle_engine_never_refuses() -> None:
    server = Server()
    server.executor.delays = [1000.0] * 200  # whatever was measured
    server.warm_up()
    server.say("a", deadline_s=1e-9)
    assert server.engine.expected_wait_s() > 1
    with pytest.raises(QueueFullError):
        server.say("b", deadline_s=1e-9)


def test_before_anything_was_measured_all_are_admitted() -> None:
    server = Server()
    for i in range(100):
        server.say(str(i), deadline_s=0.001)


@settings(max_examples=40, deadline=None)
@given(
    arrivals=st.lists(st.tuples(st.integers(0, 5), st.floats(0.3, 20)), min_size=1, max_size=120),
    max_num_seqs=st.integers(1, 6),
    num_hung=st.integers(0, 3),
)
def test_what_is_admitted_starts_in_time(
    arrivals: list[tuple[int, float]], max_num_seqs: int, num_hung: int
) -> None:
    """Each after a number of steps, and with a deadline. The last steps before them hung."""
    server = Server(max_num_seqs=max_num_seqs)
    server.executor.delays = [0.0] * 40 + [40.0] * num_hung
    for _ in range(8):
        server.warm_up()
    starts_by: dict[str, float] = {}
    for number, (steps_before, deadline_s) in enumerate(arrivals):
        for _ in range(steps_before):
            server.step()
        now, wait = server.executor.now, server.engine.expected_wait_s()
        limit = server.engine.admission.limit_s(deadline_s, PARAMS.max_tokens)
        is_idle = not server.engine.has_work
        try:
            server.say(str(number), deadline_s)
        except QueueFullError as error:
            assert wait > limit and not is_idle
            assert error.retry_after_s >= 1
        else:
            assert wait <= limit or is_idle
            starts_by[str(number)] = now + 1.2 * deadline_s
    server.finish()
    tolerance = 4 * STEP_S + 20 * PROMPT_TOKEN_S
    late = {
        name: server.begun[name] - end
        for name, end in starts_by.items()
        if server.begun[name] > end + tolerance
    }
    assert not late


def test_too_much_work_ends_in_time_for_those_that_are_admitted() -> None:
    """Three times what the engine can do: most of what it can do is still done, and whole."""
    server = Server()
    for _ in range(8):
        server.warm_up()
    reply_s = PARAMS.max_tokens * STEP_S + 4 * 7 * PROMPT_TOKEN_S
    began, seconds, tokens = server.executor.now, 40.0, Counter[str]()
    offered = 0
    while (at := server.executor.now - began) < seconds:
        while offered <= at * 3 * 4 / reply_s:
            offered += 1
            with suppress(QueueFullError):
                params = replace(PARAMS, max_time=2.0)
                server.say(f"r{offered}", deadline_s=2.0, params=params)
        server.executor.now += 0.01 * (not server.engine.has_work)
        for name, delta in server.engine.step():
            tokens[name] += len(delta.token_ids)
    num_whole = sum(count == PARAMS.max_tokens for count in tokens.values())
    assert num_whole >= 0.8 * seconds * 4 / reply_s


@pytest.mark.parametrize(
    "deadline_s, whole, busiest", [(7.0, 60, range(5, 24)), (2.2, 60, range(2, 5))]
)
def test_slots_for_more_than_can_end_in_time_are_not_filled(
    deadline_s: float, whole: int, busiest: range
) -> None:
    """With all 32 slots in use a reply would take longer than the deadline; with a short one it
    takes most of it even alone."""
    server = Server(num_blocks=800, max_num_seqs=32)
    server.executor.seq_s = 0.25 * STEP_S
    params = replace(PARAMS, max_tokens=20, max_time=deadline_s)
    for num_warm in (1, 2, 4, 8):
        for i in range(num_warm):
            server.say(f"warm {i}", params=params)
        server.finish()
    began, tokens, most, offered = server.executor.now, Counter[str](), 0, 0
    while (at := server.executor.now - began) < 120:
        while offered <= at * 8:
            offered += 1
            with suppress(QueueFullError):
                server.say(f"r{offered}", deadline_s=deadline_s, params=params)
        server.executor.now += 0.01 * (not server.engine.has_work)
        for name, delta in server.engine.step():
            tokens[name] += len(delta.token_ids)
        running = {seq.request_id for seq in server.engine.scheduler.running}
        most = max(most, len(running))
    cut = [name for name in tokens if tokens[name] < params.max_tokens and name not in running]
    assert len(tokens) > whole and not cut
    assert most in busiest


@pytest.mark.parametrize("num_ahead", [10, 40, 150])
def test_the_wait_is_that_of_the_simulated_server(num_ahead: int) -> None:
    server = Server()
    for _ in range(30):
        server.warm_up()
    for i in range(num_ahead):
        server.say(str(i), deadline_s=1000)
    server.step()
    wait, now = server.engine.expected_wait_s(), server.executor.now
    server.say("last", deadline_s=1000)
    server.finish()
    assert wait == pytest.approx(server.begun["last"] - now, rel=0.3)


def test_a_refused_request_is_told_when_to_come_back() -> None:
    server = Server()
    for _ in range(30):
        server.warm_up()
    for i in range(60):
        server.say(str(i), deadline_s=1000)
    with pytest.raises(QueueFullError) as refused:
        server.say("refused", deadline_s=2)
    again = pickle.loads(pickle.dumps(refused.value))
    assert again.retry_after_s == refused.value.retry_after_s > 1
    back_at = server.executor.now + refused.value.retry_after_s
    while server.executor.now < back_at:
        server.step()
    server.say("refused", deadline_s=2 + 0.3 * refused.value.retry_after_s)


def test_a_request_without_a_deadline_has_the_engines_bound() -> None:
    server = Server(max_queue_s=2)
    server.warm_up()
    with pytest.raises(QueueFullError, match="its limit is 2 s"):
        for i in range(1000):
            server.say(str(i))
    assert not server.engine.can_add
    server.say("urgent", priority=-50)
    server.say("pass 2", is_continuation=True)
    server.say("resumed", output_ids=[1])
    server.finish()
    assert server.engine.can_add


@pytest.mark.parametrize("num_told", [0, 3])
def test_resumed_replies_make_no_later_request_wait(num_told: int) -> None:
    """They are first passes, told in two parts."""
    server = Server()
    for i in range(20):
        server.say(f"resumed {i}", output_ids=[1] * num_told)
        server.finish()
    seq = Sequence("a", [1], SamplingParams(max_tokens=500), frozenset())
    assert server.engine.admission.speeds.num_steps_left(seq) < REPLY_TOKENS_AT_START


class CountingQueue(WaitingQueue):
    """Counts how often it is read from end to end for a forecast."""

    num_reads = 0

    def ahead_of(self, priority: int) -> list[Sequence]:
        self.num_reads += 1
        return super().ahead_of(priority)


def test_between_two_steps_the_queue_is_played_through_once() -> None:
    server = Server()
    server.warm_up()
    queue = CountingQueue(lambda: server.executor.now)
    server.engine.scheduler.waiting = queue
    server.say("first")
    before = queue.num_reads
    for i in range(50):
        server.say(str(i), deadline_s=1000)
        assert server.engine.admission.wait_s(1, 0) == server.engine.expected_wait_s()
    assert queue.num_reads - before == 50 + 1, "the fresh forecasts of this test, and one"
    server.engine.abort("7")
    server.say("pass 2", is_continuation=True)
    assert server.engine.admission.wait_s(1, 0) == server.engine.expected_wait_s() > 0
    server.finish()
    assert server.engine.admission.wait_s(1, 0) == 0


def test_after_a_hang_of_every_remembered_step_the_queue_opens_again() -> None:
    """The measurement is wrong for as long as nothing better was measured, not longer."""
    server = Server()
    server.executor.delays = [30.0] * 300
    while server.executor.delays:
        server.warm_up()
    server.say("a", deadline_s=5)
    with pytest.raises(QueueFullError):
        for i in range(10):
            server.say(str(i), deadline_s=5)
    for _ in range(NUM_STEPS):
        server.finish()
        server.warm_up()
    for i in range(10):
        server.say(f"again {i}", deadline_s=5)


def test_few_blocks_make_the_wait_longer() -> None:
    """Slots for all, blocks for two."""
    few, many = Server(num_blocks=8, max_num_seqs=32), Server(max_num_seqs=32)
    for server in (few, many):
        for _ in range(30):
            server.warm_up()
        for i in range(20):
            server.say(str(i), deadline_s=1000)
        server.step()
    wait, now = few.engine.expected_wait_s(), few.executor.now
    assert wait > 5 * many.engine.expected_wait_s()
    few.say("last", deadline_s=1000)
    few.finish()
    assert wait == pytest.approx(few.begun["last"] - now, rel=0.4)


def test_a_little_slower_reply_waits_for_about_as_long() -> None:
    """Whatever share of its deadline a reply takes, alone and beside others."""
    server = Server()
    server.executor.seq_s = 0.25 * STEP_S
    for _ in range(4):
        server.warm_up()
    server.say("beside")
    alone_s = server.engine.admission.speeds.reply_s(PARAMS.max_tokens, 1)
    deadlines = [alone_s / share for share in np.linspace(0.3, 1.3, 201)]
    limits = [
        server.engine.admission.limit_s(deadline_s, PARAMS.max_tokens) / deadline_s
        for deadline_s in deadlines
    ]
    assert max(abs(a - b) for a, b in pairwise(limits)) < 0.02
    assert limits[0] > 0, "there is time enough"
