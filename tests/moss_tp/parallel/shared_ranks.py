"""Ranks as threads of one process with shared memory: the collectives without other processes.

Also the sums in torch that the ranks' results are compared with.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor
from torch.distributed import HashStore  # type: ignore[attr-defined]  # public, unstubbed

from moss_tp.parallel.shm import SharedMemory
from moss_tp.parallel.shm_join import join_shared_memory

R = TypeVar("R")
TIMEOUT_S = 30.0


def on_ranks(
    size: int, fn: Callable[[SharedMemory, int], R], timeout_s: float = TIMEOUT_S
) -> list[R]:
    """Runs `fn(memory, rank)` on each of `size` ranks; returns the results in rank order."""
    store = HashStore()
    barrier = threading.Barrier(size)
    votes: list[bool] = []

    def all_agree(is_willing: bool) -> bool:
        votes.append(is_willing)
        barrier.wait()
        return all(votes)

    def run(rank: int) -> R:
        memory = join_shared_memory(store, rank, size, timeout_s, all_agree)
        assert memory is not None
        try:
            return fn(memory, rank)
        finally:
            memory.close()

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(run, range(size)))


def expected_sum(parts: Sequence[Tensor]) -> Tensor:
    """In fp32 and as a tree of ranks, rounded once."""

    def tree(parts: Sequence[Tensor]) -> Tensor:
        if len(parts) == 1:
            return parts[0].float()
        half = 1 << (len(parts) - 1).bit_length() - 1  # the largest power of two below
        return tree(parts[:half]) + tree(parts[half:])

    return tree(parts).to(parts[0].dtype)


def assert_same_bits(actual: Tensor, expected: Tensor) -> None:
    assert actual.dtype == expected.dtype
    bits = torch.int32 if actual.dtype == torch.float32 else torch.int16
    assert torch.equal(actual.view(bits), expected.view(bits))
