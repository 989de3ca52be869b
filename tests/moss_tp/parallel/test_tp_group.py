"""Collectives on real processes, on loopback."""

import multiprocessing
import os
import signal
import socket
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

from moss_tp.parallel.tp_group import CONTROL_INTS, TPGroup
from tests.moss_tp.parallel.shared_ranks import assert_same_bits, expected_sum
from tests.support.run_distributed import HOST, TIMEOUT_S, run_distributed

MESSAGES: tuple[list[int], ...] = (
    [],
    [7],
    [-1, 2**62],
    list(range(CONTROL_INTS - 1)),
    list(range(CONTROL_INTS + 5)),
)
# The last is longer than a slot of the shared memory.
TENSORS = (
    torch.tensor([5, -7], dtype=torch.int32),
    torch.arange(6.0).view(2, 3) + 1,
    torch.arange(200_000) + 1,
)
# gloo sums int64 even when memory is shared.
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.int64)


def collectives(group: TPGroup) -> dict[str, object]:
    def broadcast(values: list[int]) -> list[int]:
        message = np.array(values, np.int64) if group.rank == 0 else None
        received: list[int] = group.broadcast_ints(message).tolist()
        return received

    group.counts.clear()
    sums = {}
    for dtype in DTYPES:
        x = torch.full((2, 3), group.rank + 1, dtype=dtype)
        assert group.all_reduce(x) is x
        sums[dtype] = x.tolist()
    gathered = group.gather(torch.tensor([[group.rank, 9]]).T)
    assert group.counts == Counter(all_reduce=len(DTYPES), gather=1)
    tensors = [values.clone() for values in TENSORS]
    for x in tensors:
        x.mul_(group.rank == 0)
        assert group.broadcast(x) is x
    assert group.counts["broadcast"] == len(TENSORS)
    group.counts.clear()
    received = [broadcast(values) for values in MESSAGES]
    broadcasts = group.counts["broadcast"]
    group.barrier()
    return {
        "shares_memory": group.shares_memory,
        "sums": sums,
        "tensors": [x.tolist() for x in tensors],
        "gathered": None if gathered is None else [part.tolist() for part in gathered],
        "received": received,
        "broadcasts": broadcasts,
    }


def collectives_of_both_transports(group: TPGroup) -> list[dict[str, object]]:
    """Through shared memory, and over gloo, since one rank of the second group refuses to share."""
    other = another(group, share_memory=group.rank != 1)
    results = [collectives(group), collectives(other)]
    other.close()
    return results


def another(group: TPGroup, share_memory: bool = True) -> TPGroup:
    """A second group of the same ranks."""
    store = TPGroup.listen(HOST) if group.rank == 0 else None
    [port] = group.broadcast_ints(None if store is None else np.array([store.port]))
    address = (HOST, int(port))
    return TPGroup.join(
        group.rank, group.size, address, "cpu", TIMEOUT_S, share_memory=share_memory
    )


@pytest.mark.parametrize("size", [2, 3])
def test_collectives(size: int) -> None:
    by_rank = run_distributed(collectives_of_both_transports, size)
    total = float(sum(range(1, size + 1)))
    for results in by_rank:
        assert [result["shares_memory"] for result in results] == [True, False]
        # Over gloo the last message takes two broadcasts.
        assert [r["broadcasts"] for r in results] == [len(MESSAGES), len(MESSAGES) + 1]
        for result in results:
            assert result["sums"] == {dtype: [[total] * 3] * 2 for dtype in DTYPES}
            assert result["tensors"] == [x.tolist() for x in TENSORS]
            assert result["received"] == [list(values) for values in MESSAGES]
    for transport in range(2):
        first, *others = [results[transport]["gathered"] for results in by_rank]
        assert first == [[[rank], [9]] for rank in range(size)]
        assert others == [None] * (size - 1)


LENGTHS = (0, 1, 7, 1000, 64_001)
SUM_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def part_of(rank: int, length: int, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rank)
    return (torch.randn(max(LENGTHS), generator=generator)[:length] * 3).to(dtype)


def sums_over_gloo(group: TPGroup) -> list[torch.Tensor]:
    other = another(group, share_memory=False)
    parts = [part_of(group.rank, length, dtype) for dtype in SUM_DTYPES for length in LENGTHS]
    sums = [other.all_reduce(part) for part in parts]
    other.close()
    return sums


@pytest.mark.parametrize("size", [4])
def test_sums_over_gloo_have_the_bits_of_those_through_shared_memory(size: int) -> None:
    """In fp32 and as a tree of ranks, whatever is summed beside an element."""
    by_rank = run_distributed(sums_over_gloo, size)
    cases = [(dtype, length) for dtype in SUM_DTYPES for length in LENGTHS]
    for index, (dtype, length) in enumerate(cases):
        expected = expected_sum([part_of(rank, length, dtype) for rank in range(size)])
        for sums in by_rank:
            assert_same_bits(sums[index], expected)


def test_group_of_one_makes_no_collective() -> None:
    group = TPGroup.single("cpu")
    x = torch.ones(2)
    assert group.all_reduce(x) is x
    gathered = group.gather(x)
    assert gathered is not None
    assert gathered[0] is x
    assert group.broadcast_ints(np.array([1, 2])).tolist() == [1, 2]
    assert group.broadcast(x) is x
    group.barrier()
    assert not group.counts
    assert group.can_be_recorded
    group.close()
    group.close()


def test_two_groups_in_one_process() -> None:
    """No global state: a process may be a rank of several groups."""
    assert run_distributed(two_groups, 2) == [[3.0, 30.0]] * 2


def two_groups(group: TPGroup) -> list[float]:
    other = another(group)
    sums = [
        float(group.all_reduce(torch.tensor(group.rank + 1.0))),
        float(other.all_reduce(torch.tensor((group.rank + 1.0) * 10))),
    ]
    other.close()
    return sums


def test_rendezvous_store_listens_on_its_host_only() -> None:
    store = TPGroup.listen(HOST)
    socket.create_connection((HOST, store.port), timeout=5).close()
    with pytest.raises(ConnectionRefusedError):  # another address of this machine
        socket.create_connection(("127.0.0.2", store.port), timeout=5)


def test_join_times_out_when_a_rank_never_joins() -> None:
    store = TPGroup.listen(HOST)
    start = time.monotonic()
    with pytest.raises(RuntimeError):
        TPGroup.join(0, 2, (HOST, store.port), "cpu", timeout_s=1)
    assert time.monotonic() - start < 20


def leaves_early(group: TPGroup) -> float:
    """Seconds until rank 0's collective fails after rank 1 left."""
    if group.rank == 1:
        return 0
    start = time.monotonic()
    with pytest.raises(RuntimeError):
        group.all_reduce(torch.ones(1))
    return time.monotonic() - start


def test_rank_that_leaves_fails_the_others() -> None:
    assert run_distributed(leaves_early, 2)[0] < TIMEOUT_S / 2


def join_over_gloo_and_wait(port: int) -> None:
    group = TPGroup.join(1, 2, (HOST, port), "cpu", TIMEOUT_S, share_memory=False)
    group.broadcast_ints(None)
    time.sleep(TIMEOUT_S)


@pytest.mark.parametrize(
    ("end", "limit_s"), [(signal.SIGSTOP, 2), (signal.SIGKILL, TIMEOUT_S)], ids=["hangs", "dies"]
)
def test_a_peer_that_ends_in_any_way_ends_collectives_and_closing(
    end: signal.Signals, limit_s: float
) -> None:
    store = TPGroup.listen(HOST)
    process = multiprocessing.get_context("spawn").Process(
        target=join_over_gloo_and_wait, args=(store.port,), daemon=True
    )
    process.start()
    assert process.pid is not None
    address = (HOST, store.port)
    group = TPGroup.join(0, 2, address, "cpu", TIMEOUT_S, share_memory=False)
    assert group._control is not None
    group._control.set_timeout(timedelta(seconds=limit_s))
    group.broadcast_ints(np.array([1]))
    os.kill(process.pid, end)
    start = time.monotonic()
    with pytest.raises(RuntimeError):
        group.all_reduce(torch.ones(5))
    failed = time.monotonic()
    assert failed - start < limit_s + 5
    group.close()
    assert time.monotonic() - failed < 1
    process.kill()
    process.join()


MEMORY = "moss-tp-"  # prefix of the name of a group's memory


def join_and_die(port: int) -> None:
    group = TPGroup.join(1, 2, (HOST, port), "cpu", TIMEOUT_S)
    group.broadcast_ints(None)
    os.kill(os.getpid(), signal.SIGKILL)


def mapped_memory() -> set[str]:
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line for line in lines if MEMORY in line}


def open_memory() -> set[str]:
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return {target for target in map(os.path.realpath, links) if MEMORY in target}


def test_killed_rank_fails_the_others_and_leaks_no_memory() -> None:
    before = mapped_memory(), open_memory()  # of other tests in this process
    store = TPGroup.listen(HOST)
    process = multiprocessing.get_context("spawn").Process(
        target=join_and_die, args=(store.port,), daemon=True
    )
    process.start()
    group = TPGroup.join(0, 2, (HOST, store.port), "cpu", TIMEOUT_S)
    assert group.shares_memory
    assert mapped_memory() > before[0]
    assert not any("/dev/shm/" in line for line in mapped_memory())  # a name could be left behind
    group.broadcast_ints(np.array([1]))
    start = time.monotonic()
    with pytest.raises(RuntimeError, match="rank 1 is gone"):
        group.all_reduce(torch.ones(5))  # the child is a zombie: it has not been waited for
    assert time.monotonic() - start < TIMEOUT_S / 2
    process.join()
    group.close()
    assert mapped_memory() <= before[0]
    assert open_memory() <= before[1]
