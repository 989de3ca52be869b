"""Packed blocks and linears to and from files. See `base.Storage`."""

from typing import Any

from torch import Tensor

from moss_tp.kernels.base import BlockKernel, Linear
from moss_tp.kernels.cpu.chain import BlockFactory, PanelBlock
from moss_tp.kernels.cpu.description import describe, rebuild
from moss_tp.kernels.cpu.linear.panel import PanelLinear


class PanelStorage:
    """Of blocks that `blocks` has made or makes."""

    def __init__(self, blocks: BlockFactory) -> None:
        self._blocks = blocks

    def describe(self, kernel: Any) -> tuple[Any, tuple[Tensor, ...]]:
        assert isinstance(kernel, PanelBlock | PanelLinear)
        tensors: list[Tensor] = []
        description = describe(kernel.packed, tensors)
        return description, tuple(tensors)

    def block(self, description: Any, tensors: tuple[Tensor, ...]) -> BlockKernel:
        return self._blocks.over(rebuild(description, tensors))

    def linear(self, description: Any, tensors: tuple[Tensor, ...]) -> Linear:
        return PanelLinear.over(rebuild(description, tensors))
