"""The CPU as an accelerator: everything runs when it is queued."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from moss_tp.accelerator.base import Event, Graph


class Done:
    """An event that has happened."""

    def is_done(self) -> bool:
        return True


class EagerQueue:
    def launch(self, work: Callable[[], object]) -> None:
        work()

    def copy(self, to: Tensor, source: Tensor) -> None:
        to.copy_(source)

    def record(self) -> Event:
        return Done()

    def wait(self, event: Event) -> None:
        """Whatever was queued has run."""


@dataclass(frozen=True)
class EagerGraph:
    work: Callable[[], object]

    def replay(self) -> None:
        self.work()


class EagerAccelerator:
    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.compute = EagerQueue()
        self.transfer = EagerQueue()

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype)

    def graph(self, work: Callable[[], object]) -> Graph:
        return EagerGraph(work)
