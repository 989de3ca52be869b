"""How long work takes on a device: GPUs by events, the CPU by the clock."""

import statistics
import time
from collections.abc import Callable

import torch

WARM_UPS = 3


def median_s(run: Callable[[], object], device: torch.device, repeats: int = 10) -> float:
    """The median of `repeats` runs, in seconds, after a few to warm up."""
    for _ in range(WARM_UPS):
        run()
    return statistics.median(_seconds(run, device) for _ in range(repeats))


def graph_s(run: Callable[[], object], device: torch.device, repeats: int = 10) -> float:
    """The same of a CUDA graph of `run`, so that launching costs nothing; on the CPU `median_s`."""
    if device.type != "cuda":
        return median_s(run, device, repeats)
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        run()  # compiles kernels and makes cuBLAS's workspace, which a recording cannot
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        run()
    return median_s(graph.replay, device, repeats)


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    if device.type != "cuda":
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    before.record()
    run()
    after.record()
    after.synchronize()
    return float(before.elapsed_time(after)) / 1e3
