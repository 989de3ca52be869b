"""Collectives on real processes, on loopback."""

import multiprocessing
import os
import signal
import socket
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from moss_tp.parallel.tp_group import CONTROL_INTS, TPGroup, own_device
from tests.support.run_distributed import HOST, TIMEOUT_S, run_distributed

MESSAGES: tuple[list[int], ...] = (
    [],
    [7],
    [-1, 2**62],
    list(range(CONTROL_INTS - 1)),
    list(range(CONTROL_INTS + 5)),
)
# int64 is summed by gloo even where memory is shared.
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
    group.counts.clear()
    received = [broadcast(values) for values in MESSAGES]
    broadcasts = group.counts["broadcast"]
    group.barrier()
    return {
        "shares_memory": group.shares_memory,
        "sums": sums,
        "gathered": None if gathered is None else [part.tolist() for part in gathered],
        "received": received,
        "broadcasts": broadcasts,
    }


def both_ways(group: TPGroup) -> list[dict[str, object]]:
    """Through shared memory, and without it, which one rank that does not want it decides."""
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
    by_rank = run_distributed(both_ways, size)
    total = float(sum(range(1, size + 1)))
    for results in by_rank:
        assert [result["shares_memory"] for result in results] == [True, False]
        # Over gloo the last one takes two.
        assert [r["broadcasts"] for r in results] == [len(MESSAGES), len(MESSAGES) + 1]
        for result in results:
            assert result["sums"] == {dtype: [[total] * 3] * 2 for dtype in DTYPES}
            assert result["received"] == [list(values) for values in MESSAGES]
    for way in range(2):
        first, *others = [results[way]["gathered"] for results in by_rank]
        assert first == [[[rank], [9]] for rank in range(size)]
        assert others == [None] * (size - 1)


def test_a_group_of_one_talks_to_nobody() -> None:
    group = TPGroup.single("cpu")
    x = torch.ones(2)
    assert group.all_reduce(x) is x
    gathered = group.gather(x)
    assert gathered is not None
    assert gathered[0] is x
    assert group.broadcast_ints(np.array([1, 2])).tolist() == [1, 2]
    group.barrier()
    assert not group.counts
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


def test_the_meeting_point_is_on_its_host_only() -> None:
    store = TPGroup.listen(HOST)
    socket.create_connection((HOST, store.port), timeout=5).close()
    with pytest.raises(ConnectionRefusedError):  # another address of this machine
        socket.create_connection(("127.0.0.2", store.port), timeout=5)


def test_a_rank_that_never_comes() -> None:
    store = TPGroup.listen(HOST)
    start = time.monotonic()
    with pytest.raises(RuntimeError):
        TPGroup.join(0, 2, (HOST, store.port), "cpu", timeout_s=1)
    assert time.monotonic() - start < 20


def leaves_early(group: TPGroup) -> float:
    """Seconds after which a rank notices that rank 1 is gone."""
    if group.rank == 1:
        return 0
    start = time.monotonic()
    with pytest.raises(RuntimeError):
        group.all_reduce(torch.ones(1))
    return time.monotonic() - start


def test_a_rank_that_leaves_is_noticed() -> None:
    assert run_distributed(leaves_early, 2)[0] < TIMEOUT_S / 2


MEMORY = "moss-tp-"  # how the name of a group's memory begins


def join_and_die(port: int) -> None:
    group = TPGroup.join(1, 2, (HOST, port), "cpu", TIMEOUT_S)
    group.broadcast_ints(None)
    os.kill(os.getpid(), signal.SIGKILL)


def mapped_memory() -> list[str]:
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if MEMORY in line]


def open_memory() -> list[Path]:
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return [link for link in links if MEMORY in str(link.readlink())]


def test_a_killed_rank_is_noticed_and_leaves_nothing() -> None:
    named = set(Path("/dev/shm").iterdir())
    store = TPGroup.listen(HOST)
    process = multiprocessing.get_context("spawn").Process(target=join_and_die, args=(store.port,))
    process.start()
    group = TPGroup.join(0, 2, (HOST, store.port), "cpu", TIMEOUT_S)
    assert group.shares_memory
    assert mapped_memory()
    assert set(Path("/dev/shm").iterdir()) <= named
    group.broadcast_ints(np.array([1]))
    start = time.monotonic()
    with pytest.raises(RuntimeError, match="rank 1 is gone"):
        group.all_reduce(torch.ones(5))  # nobody has waited for the child: it is a zombie
    assert time.monotonic() - start < TIMEOUT_S / 2
    process.join()
    group.close()
    assert mapped_memory() == []
    assert open_memory() == []


@pytest.mark.parametrize(
    ("named", "own"), [("cuda", "cuda:0"), ("cuda:1", "cuda:1"), ("cpu", "cpu")]
)
def test_a_gpu_has_a_number(named: str, own: str) -> None:
    assert str(own_device(named)) == own
