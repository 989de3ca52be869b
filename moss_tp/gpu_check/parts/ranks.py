"""Two ranks on one card, eagerly; NCCL with one rank, recorded in a graph, replayed, torn down."""

import time
from collections.abc import Callable
from datetime import timedelta

import torch
from torch import Tensor

from moss_tp.gpu_check.check import Check
from moss_tp.gpu_check.parts.tokens import compare
from moss_tp.gpu_check.verdict import Verdict
from moss_tp.parallel.backends import nccl_backend
from moss_tp.parallel.deadline import end
from moss_tp.parallel.ordered_sum import OrderedSum
from moss_tp.parallel.tp_group import TPGroup

HOST = "127.0.0.1"
TIMEOUT_S = 20.0
MAX_CLOSE_S = 5.0
REPLAYS = 3


def run(check: Check) -> None:
    compare(check, "of two ranks on one card", {"tp_size": 2, "step_timeout_s": TIMEOUT_S})
    if check.device.type == "cuda":
        _nccl(check)
        _sums(check)


def _nccl(check: Check) -> None:
    """A group of one rank makes its collectives all the same, if it has joined."""
    store = TPGroup.listen(HOST)
    group = TPGroup.join(0, 1, (HOST, store.port), "cuda:0", TIMEOUT_S)
    _replayed(check, "NCCL in a graph, right sums", group.all_reduce, torch.int32)
    start = time.monotonic()
    group.close()
    closed = time.monotonic() - start
    check.verdict(Verdict("closing it", closed, "s", bar=MAX_CLOSE_S, sense="at most"))


def _sums(check: Check) -> None:
    """The calls that sums of more than two ranks make, by one."""
    torch.cuda.set_device(0)
    store = TPGroup.listen(HOST)
    nccl = nccl_backend(store, 0, 1, timedelta(seconds=TIMEOUT_S))
    sums = OrderedSum(nccl, 1)
    for name, way in (("in one shot", sums.one_shot), ("by shares", sums.by_shares)):
        way(torch.ones(1000, dtype=torch.float16, device="cuda:0"))  # NCCL connects
        _replayed(check, f"NCCL in a graph, right sums {name}", way, torch.float16)
    held = [nccl]
    del nccl, sums, way
    end(held)


def _replayed(
    check: Check, name: str, collective: Callable[[Tensor], object], dtype: torch.dtype
) -> None:
    """A graph that counts, and sums what it has counted over one rank. It is gone afterwards: NCCL
    waits for the graphs that it is recorded in."""
    stream = torch.cuda.Stream("cuda:0")  # type: ignore[no-untyped-call]
    total = torch.zeros(1000, dtype=dtype, device="cuda:0")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        total.add_(1)
        collective(total)
    for _ in range(REPLAYS):
        graph.replay()
    torch.cuda.synchronize(check.device)
    right = int((total == REPLAYS).sum())
    check.verdict(Verdict(name, right, limit=len(total), bar=1))
