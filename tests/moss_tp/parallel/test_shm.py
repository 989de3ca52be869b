"""Collectives through shared memory: their results to the bit, in any order of arrival."""

import os
import random
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from moss_tp.native.llvm import INT_BYTES
from moss_tp.parallel.segment import SLOT_BYTES, Segment
from moss_tp.parallel.shm import MAX_ONE_SHOT_BYTES, SharedMemory
from tests.moss_tp.parallel.shared_ranks import assert_same_bits, expected_sum, on_ranks

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SLOT_INTS = SLOT_BYTES // INT_BYTES


def lengths(dtype: torch.dtype) -> list[int]:
    """In elements: around every size at which the algorithm changes."""
    all_add, slot = MAX_ONE_SHOT_BYTES // dtype.itemsize, SLOT_BYTES // dtype.itemsize
    return [0, 1, 7, 1025, all_add, all_add + 1, slot - 1, slot, slot + 3, 2 * slot + 5]


def part(rank: int, length: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(1000 * seed + rank)
    return (torch.randn(length, generator=generator) * 3).to(dtype)


def check_sums(size: int, silent_rank: int | None = None) -> None:
    """Checks the sum over all ranks, for every dtype and length; `silent_rank` adds zeros."""

    def sums(memory: SharedMemory, rank: int) -> list[Tensor]:
        results = []
        for dtype in DTYPES:
            for length in lengths(dtype):
                x = part(rank, length, dtype) * (rank != silent_rank)
                memory.all_reduce(x)
                results.append(x)
        return results

    by_rank = on_ranks(size, sums)
    cases = ((dtype, length) for dtype in DTYPES for length in lengths(dtype))
    for index, (dtype, length) in enumerate(cases):
        expected = expected_sum([part(rank, length, dtype) for rank in range(size)])
        for results in by_rank:
            assert_same_bits(results[index], expected)


@pytest.mark.parametrize("size", [2, 3, 4, 5, 8])
def test_sums_have_the_same_bits_on_every_rank(size: int) -> None:
    check_sums(size)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_a_missing_summand_is_noticed(size: int) -> None:
    with pytest.raises(AssertionError):
        check_sums(size, silent_rank=size - 1)


def test_a_sum_is_in_place_for_any_strides() -> None:
    def transposed(memory: SharedMemory, rank: int) -> Tensor:
        x = torch.arange(6.0).view(2, 3).T
        memory.all_reduce(x)
        return x

    for x in on_ranks(2, transposed):
        assert torch.equal(x, 2 * torch.arange(6.0).view(2, 3).T)


def test_gather_of_any_shape_and_dtype() -> None:
    def gathered(memory: SharedMemory, rank: int) -> list[list[Tensor] | None]:
        tall = torch.full((SLOT_BYTES + 9, 1), rank, dtype=torch.uint8)
        strided = (torch.arange(6).view(2, 3) + rank).T
        return [memory.gather(tall), memory.gather(strided)]

    first, *others = on_ranks(3, gathered)
    assert others == [[None, None]] * 2
    tall, strided = first
    assert tall is not None and strided is not None
    for rank in range(3):
        assert tall[rank].shape == (SLOT_BYTES + 9, 1)
        assert (tall[rank] == rank).all()
        assert torch.equal(strided[rank], (torch.arange(6).view(2, 3) + rank).T)


@pytest.mark.parametrize("size", [2, 3])
def test_messages_longer_than_a_slot(size: int) -> None:
    counts = (0, 1, SLOT_INTS - 1, SLOT_INTS, 2 * SLOT_INTS + 1)

    def receive(memory: SharedMemory, rank: int) -> list[list[int]]:
        messages = [list(range(-3, count - 3)) for count in counts]
        return [broadcast(memory, rank, message) for message in messages]

    for received in on_ranks(size, receive):
        assert received == [list(range(-3, count - 3)) for count in counts]


def broadcast(memory: SharedMemory, rank: int, message: list[int]) -> list[int]:
    """Rank 0's `message` as this rank received it."""
    values = np.array(message, np.int64) if rank == 0 else None
    received: list[int] = memory.broadcast_ints(values).tolist()
    return received


def run_random(memory: SharedMemory, rank: int, seed: int, epochs: int) -> None:
    """Checks random collectives, the same on every rank, with delays that differ by rank.

    Values differ from epoch to epoch, so stale ones are noticed.
    """
    common, own = random.Random(seed), random.Random(f"{seed} {rank}")
    size = memory._size
    for epoch in range(epochs):
        collective = common.choice(("sum", "sum", "sum", "gather", "broadcast", "barrier"))
        length = common.choice((1, 3, 700, 20_000))
        if own.random() < 0.05:
            time.sleep(own.random() * 0.002)
        mine = torch.full((length,), float(epoch * size + rank))
        if collective == "sum":
            memory.all_reduce(mine)
            assert (mine == epoch * size * size + sum(range(size))).all(), epoch
        elif collective == "gather":
            parts = memory.gather(mine)
            values = [] if parts is None else [set(part.tolist()) for part in parts]
            assert values == [{float(epoch * size + r)} for r in range(size)][: len(values)]
        elif collective == "broadcast":
            message = [epoch] * min(length, 700)
            assert broadcast(memory, rank, message) == message
        else:
            memory.barrier()


@pytest.mark.parametrize("size", [2, 3, 4])
def test_thousands_of_collectives_back_to_back(size: int) -> None:
    on_ranks(size, lambda memory, rank: run_random(memory, rank, seed=size, epochs=2000))


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 4), st.integers(0, 2**32))
def test_any_sequence_of_collectives(size: int, seed: int) -> None:
    on_ranks(size, lambda memory, rank: run_random(memory, rank, seed, epochs=40))


def test_messages_wait_for_the_slowest() -> None:
    """Rank 0 does not wait for replies, but never overwrites a message that is still unread."""

    def receive(memory: SharedMemory, rank: int) -> list[list[int]]:
        received = []
        for epoch in range(12):
            time.sleep(0.01 if rank == 2 else 0)
            received.append(broadcast(memory, rank, [epoch] * 3))
        return received

    assert on_ranks(3, receive) == [[[epoch] * 3 for epoch in range(12)]] * 3


def test_an_idle_rank_sleeps() -> None:
    def cpu_s(memory: SharedMemory, rank: int) -> float:
        if rank == 0:
            time.sleep(1)
        start = time.thread_time()
        broadcast(memory, rank, [1])
        return time.thread_time() - start

    assert on_ranks(2, cpu_s)[1] < 0.1


def test_a_wait_for_a_hung_rank_times_out() -> None:
    def wait(memory: SharedMemory, rank: int) -> None:
        if rank == 1:
            time.sleep(1)
        else:
            with pytest.raises(RuntimeError, match=r"rank 1 has not responded for 0\.3 s"):
                memory.all_reduce(torch.ones(1))

    on_ranks(2, wait, timeout_s=0.3)


def test_a_message_may_come_at_any_time() -> None:
    """The ranks above 0 wait for the next step as long as rank 0 lives."""

    def receive(memory: SharedMemory, rank: int) -> list[int]:
        if rank == 0:
            time.sleep(1)
        return broadcast(memory, rank, [7])

    assert on_ranks(2, receive, timeout_s=0.3) == [[7], [7]]


def test_time_asleep_is_no_time_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a sleep of the machine, or Ctrl-Z and `fg`, the clock has advanced a lot."""
    fast = SimpleNamespace(monotonic=lambda: 1e4 * time.monotonic())
    monkeypatch.setattr("moss_tp.parallel.shm.time", fast)

    def meet(memory: SharedMemory, rank: int) -> None:
        time.sleep(0.5 * rank)
        memory.barrier()

    on_ranks(2, meet, timeout_s=10)


def test_a_rank_that_left_is_reported_but_its_posts_count() -> None:
    def leave(memory: SharedMemory, rank: int) -> None:
        if rank == 1:
            memory.gather(torch.ones(1))
            return
        time.sleep(0.2)
        assert memory.gather(torch.ones(1)) == [torch.ones(1)] * 2
        with pytest.raises(RuntimeError, match="rank 1 has left"):
            memory.barrier()

    on_ranks(2, leave)


def test_closing_ends_the_ranks_own_wait() -> None:
    def wait(memory: SharedMemory, rank: int) -> None:
        if rank == 1:
            time.sleep(0.5)
            return
        with pytest.raises(RuntimeError, match="closed"):
            threading.Timer(0.1, memory.close).start()
            memory.barrier()

    on_ranks(2, wait)


@pytest.mark.parametrize("place", ["boot_id", "pid", "file", "name"])
def test_a_segment_of_another_host_or_process_is_not_opened(place: str) -> None:
    file, location = Segment.create(2)
    assert Segment.open(location, 1, 2) is not None
    parts = dict(zip(("boot_id", "pid", "file", "name"), location.split("/"), strict=True))
    parts[place] = {"pid": "1", "file": "0"}.get(place, "another")
    assert Segment.open("/".join(parts.values()), 1, 2) is None
    assert Segment.open("", 1, 2) is None
    os.close(file)
    assert Segment.open(location, 1, 2) is None
