"""CUDA through torch: streams, events that are queried, and graphs that share one memory pool."""

from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakSet

import torch
from torch import Tensor

from moss_tp.accelerator.base import Event, Graph


@dataclass(frozen=True)
class CudaEvent:
    event: torch.cuda.Event

    def is_done(self) -> bool:
        """See `base.Event`. Work that was captured in a graph reports its failures here, too."""
        return bool(self.event.query())  # type: ignore[no-untyped-call]


class CudaQueue:
    def __init__(self, stream: torch.cuda.Stream) -> None:
        self.stream = stream

    def launch(self, work: Callable[[], object]) -> None:
        with torch.cuda.stream(self.stream):
            work()

    def copy(self, to: Tensor, source: Tensor) -> None:
        with torch.cuda.stream(self.stream):
            to.copy_(source, non_blocking=True)

    def record(self) -> CudaEvent:
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(self.stream)
        return CudaEvent(event)

    def wait(self, event: Event) -> None:
        """Also inside a recording: that is how `transfer` forks from `compute` and joins it."""
        assert isinstance(event, CudaEvent)
        self.stream.wait_event(event.event)


class CudaGraph:
    def __init__(self, graph: torch.cuda.CUDAGraph, queue: CudaQueue) -> None:
        self.graph = graph
        self._queue = queue

    def replay(self) -> None:
        with torch.cuda.stream(self._queue.stream):
            self.graph.replay()


class CudaAccelerator:
    """`device` with an index. `compute` becomes the current stream of the calling thread, so that
    what this thread does elsewhere, loading weights say, is in order with it."""

    def __init__(self, device: torch.device) -> None:
        torch.cuda.set_device(device)
        self.device = device
        self.compute, self.transfer = _queue(device), _queue(device)
        self._graphs: WeakSet[CudaGraph] = WeakSet()
        self.compute.stream.wait_stream(torch.cuda.current_stream(device))
        torch.cuda.set_stream(self.compute.stream)

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype, pin_memory=True)

    def graph(self, work: Callable[[], object]) -> Graph:
        """See `base.Accelerator`. Waits for the device. Graphs share a pool, so no two of them run
        at the same time: all are replayed on `compute`. Record the largest first."""
        graph = torch.cuda.CUDAGraph()
        living = next(iter(self._graphs), None)
        recording = torch.cuda.graph(
            graph,
            pool=None if living is None else living.graph.pool(),  # one of no graph is gone
            stream=self.compute.stream,
            # Other threads may use CUDA meanwhile: NCCL's watchdog queries its events.
            capture_error_mode="thread_local",
        )
        with recording:
            work()
        recorded = CudaGraph(graph, self.compute)
        self._graphs.add(recorded)
        return recorded


def _queue(device: torch.device) -> CudaQueue:
    return CudaQueue(torch.cuda.Stream(device))  # type: ignore[no-untyped-call]
