"""An accelerator that does nothing, at once: what a step takes on it is the host's own work.

Its outputs stay what they were: zeros.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from moss_tp.accelerator.base import Event, Graph
from moss_tp.accelerator.eager import Done, EagerGraph


class NullQueue:
    def launch(self, work: Callable[[], object]) -> None:
        """`work` is not called."""

    def copy(self, to: Tensor, source: Tensor) -> None:
        """`to` stays as it is."""

    def record(self) -> Event:
        return Done()

    def wait(self, event: Event) -> None:
        """There is nothing to wait for."""


class NullAccelerator:
    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.compute = NullQueue()
        self.transfer = NullQueue()

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype)

    def graph(self, work: Callable[[], object]) -> Graph:
        return EagerGraph(lambda: None)
