"""Two ranks on one card, eagerly; NCCL with one rank, recorded in a graph, replayed, torn down."""

import time

import torch

from moss_tp.gpu_check.check import Check
from moss_tp.gpu_check.parts.tokens import compare
from moss_tp.gpu_check.verdict import Verdict
from moss_tp.parallel.tp_group import TPGroup

HOST = "127.0.0.1"
TIMEOUT_S = 20.0
MAX_CLOSE_S = 5.0
REPLAYS = 3


def run(check: Check) -> None:
    compare(check, "of two ranks on one card", {"tp_size": 2, "step_timeout_s": TIMEOUT_S})
    if check.device.type == "cuda":
        _nccl(check)


def _nccl(check: Check) -> None:
    """A group of one rank makes its collectives all the same, if it has joined."""
    store = TPGroup.listen(HOST)
    device = torch.device("cuda", 0)
    group = TPGroup.join(0, 1, (HOST, store.port), device, TIMEOUT_S)
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    total = torch.zeros(1000, dtype=torch.int32, device=device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        total.add_(1)
        group.all_reduce(total)
    for _ in range(REPLAYS):
        graph.replay()
    torch.cuda.synchronize(device)
    right = int((total == REPLAYS).sum())
    check.verdict(Verdict("NCCL in a graph, right sums", right, limit=len(total), bar=1))
    del graph  # NCCL waits for the graphs that it is recorded in
    start = time.monotonic()
    group.close()
    closed = time.monotonic() - start
    check.verdict(Verdict("closing it", closed, "s", bar=MAX_CLOSE_S, sense="at most"))
