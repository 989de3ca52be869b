"""The protocol of a device that computes behind the host's back.

Work is queued and runs later, in order, while the host goes on. So the host reads what the device
has written only after an event, and does not change what the device still reads.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor


class Event(Protocol):
    def is_done(self) -> bool:
        """Whether all work that was queued before it has ended. Never blocks, so that the caller
        can give up. Raises RuntimeError where the device has failed."""
        ...


class Queue(Protocol):
    """Work that runs in order. Different queues run at the same time, except for `wait`."""

    def launch(self, work: Callable[[], object]) -> None:
        """Queues what `work` does on tensors of the device; it may be called now or later."""
        ...

    def copy(self, to: Tensor, source: Tensor) -> None:
        """Queues `to.copy_(source)`; the one on the host is pinned memory, see `pinned`."""
        ...

    def record(self) -> Event:
        """An event after all that is queued now."""
        ...

    def wait(self, event: Event) -> None:
        """What is queued from now on runs after `event`. The host does not wait."""
        ...


class Graph(Protocol):
    def replay(self) -> None:
        """Queues the recorded work once more, on `compute`. It reads and writes the tensors that
        it was recorded with, as they are when it runs."""
        ...


class Accelerator(Protocol):
    @property
    def device(self) -> torch.device: ...

    @property
    def compute(self) -> Queue: ...

    @property
    def transfer(self) -> Queue:
        """For copies between host and device beside the computation."""
        ...

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Zeroed memory of the host that the device can copy from and to by itself."""
        ...

    def graph(self, work: Callable[[], object]) -> Graph:
        """Records `work` without running it. `work` queues nothing that the host must see, uses
        `compute` and `transfer`, and has joined `transfer` to `compute` at its end."""
        ...
