"""An accelerator on the CPU that is as late as the protocol allows, to show what is out of order.

Queued work runs only when the host checks an event, and only up to that event; work of the other
queue runs first only where a `wait` says so. So an output that is read too early, an input that is
changed too early and a wait that is missing show as wrong values.

Where `is_transfer_early`, `transfer` is as early instead: it runs whatever no `wait` holds back.
So a buffer that it overwrites while `compute` still reads it shows, too.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from moss_tp.accelerator.base import Event, Graph
from moss_tp.accelerator.eager import EagerGraph


@dataclass(frozen=True)
class LazyEvent:
    """After the first `place` pieces of work of `queue`."""

    queue: "LazyQueue"
    place: int

    @property
    def has_happened(self) -> bool:
        return self.queue.num_done >= self.place

    def is_done(self) -> bool:
        self.queue.run_to(self.place)
        return True


Work = Callable[[], object] | LazyEvent  # an event is waited for


class LazyQueue:
    def __init__(self) -> None:
        self.num_done = 0
        self._left: deque[Work] = deque()
        self._is_running = False
        self.before_each: Callable[[], None] = lambda: None
        self.is_early = False

    @property
    def is_empty(self) -> bool:
        return not self._left

    def launch(self, work: Callable[[], object]) -> None:
        self._queue(work)

    def copy(self, to: Tensor, source: Tensor) -> None:
        self._queue(lambda: to.copy_(source))

    def record(self) -> LazyEvent:
        # Work that is running has done all before this point of it.
        return LazyEvent(self, self.num_done + (0 if self._is_running else len(self._left)))

    def wait(self, event: Event) -> None:
        assert isinstance(event, LazyEvent)
        self._queue(event)

    def run_to(self, place: int) -> None:
        while self.num_done < place:
            if self._is_running:
                raise RuntimeError("two queues wait for each other")
            self._run_one()

    def run_free(self) -> None:
        """Runs what no wait holds back."""
        while self._left and not self._is_running:
            work = self._left[0]
            if isinstance(work, LazyEvent) and not work.has_happened:
                return
            self._run_one()

    def _queue(self, work: Work) -> None:
        if self._is_running:  # queued by the work that runs, say a graph's
            _run(work)
            return
        self._left.append(work)
        if self.is_early:
            self.run_free()

    def _run_one(self) -> None:
        self.before_each()
        self._is_running = True
        try:
            _run(self._left.popleft())
        finally:
            self._is_running = False
            self.num_done += 1


def _run(work: Work) -> None:
    if isinstance(work, LazyEvent):
        work.is_done()
    else:
        work()


class LazyAccelerator:
    def __init__(self, *, is_transfer_early: bool = False) -> None:
        self.device = torch.device("cpu")
        self.compute = LazyQueue()
        self.transfer = LazyQueue()
        self.num_replays = 0
        if is_transfer_early:
            self.transfer.is_early = True
            self.compute.before_each = self.transfer.run_free

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype)

    def graph(self, work: Callable[[], object]) -> Graph:
        def run() -> None:
            self.num_replays += 1
            work()
            if not self.transfer.is_empty:
                raise RuntimeError("a graph has not joined `transfer` to `compute`")

        return EagerGraph(lambda: self.compute.launch(run))
