"""Order of service, deadlines in the queue, and freedom from starvation."""

from hypothesis import given, settings
from hypothesis import strategies as st

from moss_tp.engine.scheduling.sequence import Sequence
from moss_tp.engine.scheduling.waiting_queue import PRIORITY_STEP_S, WaitingQueue
from moss_tp.sampling_params import SamplingParams
from tests.moss_tp.engine.scheduling.schedule_run import MAX_MODEL_LEN, Run


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def sequence(name: str, output: int = 0) -> Sequence:
    seq = Sequence(name, [1], SamplingParams(), frozenset())
    seq.token_ids.extend([2] * output)
    return seq


def is_continuation(seq: Sequence) -> bool:
    return not seq.rank[0]


def names(queue: WaitingQueue) -> str:
    return "".join(seq.request_id for seq in queue)


def test_smaller_priorities_first_and_each_in_order_of_arrival() -> None:
    queue = WaitingQueue(Clock())
    for name, priority in zip("abcdef", (0, 1, 0, -1, 1, -1), strict=True):
        queue.add(sequence(name), priority)
    assert names(queue) == "dfacbe"
    assert [queue.pop().request_id for _ in range(3)] == ["d", "f", "a"]


def test_waiting_compensates_for_priority() -> None:
    clock = Clock()
    queue = WaitingQueue(clock)
    queue.add(sequence("a"), priority=1)
    clock.now += PRIORITY_STEP_S - 1
    queue.add(sequence("b"), priority=0)
    clock.now += 2
    queue.add(sequence("c"), priority=0)
    assert names(queue) == "bac"


def test_continuations_come_first_and_keep_their_order() -> None:
    clock = Clock()
    queue = WaitingQueue(clock)
    queue.add(sequence("a"), priority=-100)
    queue.add(sequence("b"), is_continuation=True)
    clock.now += 1000 * PRIORITY_STEP_S
    queue.add(sequence("c"), priority=-100, is_continuation=True)
    queue.add(sequence("d"), is_continuation=True)
    assert names(queue) == "bcda"


def test_a_preempted_sequence_keeps_its_place() -> None:
    queue = WaitingQueue(Clock())
    for name in "abc":
        queue.add(sequence(name))
    first = queue.pop()
    queue.add(sequence("d"), priority=-1)
    queue.put_back(first)
    assert names(queue) == "dabc"


def test_a_deadline_ends_with_the_first_token() -> None:
    clock = Clock()
    queue = WaitingQueue(clock)
    queue.add(sequence("a"), deadline_s=5)
    queue.add(sequence("b"))
    queue.add(sequence("c", output=1), deadline_s=5)
    clock.now += 4.9
    assert queue.expired() == []
    clock.now += 0.1
    assert [seq.request_id for seq in queue.expired()] == ["a"]


def test_an_expired_request_leaves_the_queue_and_a_running_one_stays() -> None:
    run = Run(block_size=4, num_spare_blocks=0, max_seqs=1, max_tokens=4)
    running = run.add([1] * 20, max_tokens=3, deadline_s=3)
    waiting = run.add([2], max_tokens=1, deadline_s=3)
    run.finish()
    assert (waiting.finish_reason, waiting.num_output_tokens) == ("abort", 0)
    run.check_reply(running)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, MAX_MODEL_LEN - 1), min_size=1, max_size=4),
    priorities=st.lists(st.integers(-1, 3), min_size=4, max_size=4),
    stream=st.lists(st.integers(0, 2), min_size=1, max_size=5),
    stream_priority=st.integers(-2, 0),
    num_spare_blocks=st.integers(0, 6),
    max_seqs=st.integers(1, 4),
    max_tokens=st.integers(1, 16),
    has_second_pass=st.booleans(),
)
def test_every_request_ends_under_an_endless_stream_of_urgent_ones(
    lengths: list[int],
    priorities: list[int],
    stream: list[int],
    stream_priority: int,
    num_spare_blocks: int,
    max_seqs: int,
    max_tokens: int,
    has_second_pass: bool,
) -> None:
    """The scheduler's bound, with the most requests that can arrive in time to rank before.

    With second passes, a continuation follows every request that finishes.
    """
    run = Run(4, num_spare_blocks, max_seqs, max_tokens)
    # It queues behind the requests that are already there.
    for _ in range(max_seqs):
        run.add([1, 2, 3], max_tokens=6)
    bounds: dict[Sequence, int] = {}
    for length, priority in zip(lengths, priorities, strict=False):
        num_seconds = max(0, priority - stream_priority) * int(PRIORITY_STEP_S) + 1
        num_before = max_seqs + len(lengths) + max(stream) * num_seconds
        seq = run.add([5] * length, 4, priority=priority)
        num_before *= 2 if has_second_pass else 1
        bounds[seq] = (num_before + 1) * (max_seqs + 1) * MAX_MODEL_LEN
    while any(seq.finish_reason is None for seq in bounds):
        for _ in range(stream[run.now % len(stream)]):
            run.add([1, 2, 3], max_tokens=6, priority=stream_priority)
        ended = [seq for seq in run.step() if seq.finish_reason is not None]
        for seq in ended if has_second_pass else ():
            if not is_continuation(seq):
                run.add([1, 2, 3, 4], max_tokens=6, is_continuation=True)
        for seq, bound in bounds.items():
            assert seq.finish_reason is not None or run.now < bound
    for seq in bounds:
        run.check_reply(seq)


def test_without_aging_a_request_would_starve() -> None:
    """The control: two steps of work arrive each step, and one request does not age."""
    run = Run(block_size=4, num_spare_blocks=8, max_seqs=3, max_tokens=8)
    ageing = run.add([5] * 28, max_tokens=4, priority=3)
    ageless = run.add([5] * 28, max_tokens=4, priority=10**6)
    for _ in range(300):
        run.add([1, 2, 3], max_tokens=6, priority=0)
        run.step()
    assert ageing.finish_reason == "length"
    assert ageless.num_computed == ageless.num_output_tokens == 0
