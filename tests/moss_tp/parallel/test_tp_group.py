"""Collectives on real processes, on loopback."""

import socket
import time
from collections import Counter

import pytest
import torch

from moss_tp.parallel.tp_group import CONTROL_INTS, TPGroup
from tests.support.run_distributed import HOST, TIMEOUT_S, run_distributed

MESSAGES: tuple[list[int], ...] = (
    [],
    [7],
    [-1, 2**62],
    list(range(CONTROL_INTS - 1)),
    list(range(CONTROL_INTS + 5)),
)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def collectives(group: TPGroup) -> dict[str, object]:
    def broadcast(values: list[int]) -> list[int]:
        return group.broadcast_ints(list(values) if group.rank == 0 else None)

    sums = {}
    for dtype in DTYPES:
        x = torch.full((2, 3), group.rank + 1.0, dtype=dtype)
        assert group.all_reduce(x) is x
        sums[dtype] = x.tolist()
    gathered = group.gather(torch.tensor([[group.rank, 9]]).T)
    assert group.counts == Counter(all_reduce=len(DTYPES), gather=1)
    group.counts.clear()
    received = [broadcast(values) for values in MESSAGES]
    broadcasts = group.counts["broadcast"]
    group.barrier()
    return {
        "sums": sums,
        "gathered": None if gathered is None else [part.tolist() for part in gathered],
        "received": received,
        "broadcasts": broadcasts,
    }


@pytest.mark.parametrize("size", [2, 3])
def test_collectives(size: int) -> None:
    results = run_distributed(collectives, size)
    total = float(sum(range(1, size + 1)))
    for result in results:
        assert result["sums"] == {dtype: [[total] * 3] * 2 for dtype in DTYPES}
        assert result["received"] == [list(values) for values in MESSAGES]
        assert result["broadcasts"] == len(MESSAGES) + 1  # only the last one overflows
    assert results[0]["gathered"] == [[[rank], [9]] for rank in range(size)]
    assert all(result["gathered"] is None for result in results[1:])


def test_a_group_of_one_talks_to_nobody() -> None:
    group = TPGroup.single("cpu")
    x = torch.ones(2)
    assert group.all_reduce(x) is x
    gathered = group.gather(x)
    assert gathered is not None
    assert gathered[0] is x
    assert group.broadcast_ints([1, 2]) == [1, 2]
    group.barrier()
    assert not group.counts
    group.close()
    group.close()


def test_two_groups_in_one_process() -> None:
    """No global state: a process may be a rank of several groups."""
    assert run_distributed(two_groups, 2) == [[3.0, 30.0]] * 2


def two_groups(group: TPGroup) -> list[float]:
    store = TPGroup.listen(HOST) if group.rank == 0 else None
    [port] = group.broadcast_ints(None if store is None else [store.port])
    other = TPGroup.join(group.rank, group.size, (HOST, port), "cpu", timeout_s=30)
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
