"""An accelerator on the CPU that has no memory for a graph."""

from collections.abc import Callable

import torch

from moss_tp.accelerator.base import Graph
from moss_tp.accelerator.eager import EagerAccelerator


class FailingAccelerator(EagerAccelerator):
    """It can be sent to another process."""

    def graph(self, work: Callable[[], object]) -> Graph:
        raise torch.OutOfMemoryError("there is no memory for a graph")
