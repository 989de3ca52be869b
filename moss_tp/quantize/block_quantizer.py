"""Quantizes one block, linear after linear: each sees the inputs that the ones before it, already
quantized, will give it.

    1  qkv_proj, fc_in    one Hessian: both read the block's normed input
    2  out_proj           of attention as the quantized qkv_proj has it
    3  fc_out             of the quantized fc_in's columns
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from moss_tp.config import FC_IN, FC_OUT, OUT_PROJ, QKV_PROJ
from moss_tp.kernels.base import DenseWeight
from moss_tp.quantize.block import Block
from moss_tp.quantize.gptq.columns import Rounded, quantize, round_to_nearest
from moss_tp.quantize.gptq.grid import Grid
from moss_tp.quantize.gptq.hessian import Curvature, Hessian
from moss_tp.quantize.gptq.layout import dequantized, published_tensors
from moss_tp.quantize.settings import QuantizeSettings

STAGES = ((QKV_PROJ, FC_IN), (OUT_PROJ,), (FC_OUT,))


@dataclass(frozen=True)
class QuantizedBlock:
    """The same block by GPTQ and rounded to nearest, with what is stored of the former."""

    tensors: dict[str, Tensor]  # by their names behind the block's
    quantized: Block
    nearest: Block
    dampings: dict[str, float]  # of each linear


class BlockQuantizer:
    """`weight` reads a linear's weight `(inputs, outputs)` in fp32; `inputs` begins to read the
    block's calibration inputs anew, `(T, hidden)` each; `after_stage` is called after each stage.
    """

    def __init__(
        self,
        settings: QuantizeSettings,
        block: Block,
        weight: Callable[[str], Tensor],
        inputs: Callable[[], Iterable[Tensor]],
        after_stage: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings, self._grid = settings, Grid(settings.bits, settings.sym)
        self._block, self._weight, self._inputs = block, weight, inputs
        self._after_stage = after_stage

    def run(self) -> QuantizedBlock:
        """Raises CheckpointError for weights or activations that are not finite."""
        done = QuantizedBlock({}, self._block, self._block, {})
        for stage in STAGES:
            curvature = self._curvature(stage, done.quantized)
            for name in stage:
                done = self._quantize(name, curvature, done)
            self._after_stage()
        return done

    def _curvature(self, stage: tuple[str, ...], block: Block) -> Curvature:
        first = block.linears[stage[0]]
        hessian = Hessian(first.inputs, first.weight.device)
        for inputs in self._inputs_of(stage[0], block):
            hessian.add(inputs)
        settings = self._settings
        size = settings.group_of(first.inputs)
        return hessian.finish(settings.damping, settings.act_order, size)

    def _inputs_of(self, linear: str, block: Block) -> Iterator[Tensor]:
        for x in self._inputs():
            normed = block.normed(x)
            if linear == OUT_PROJ:
                yield block.attended(normed)
            else:
                yield block.expanded(normed) if linear == FC_OUT else normed

    def _quantize(self, name: str, curvature: Curvature, done: QuantizedBlock) -> QuantizedBlock:
        """`done` with the linear `name` added."""
        weight = self._weight(name)
        size = self._settings.group_of(len(weight))
        nearest = round_to_nearest(weight, self._grid, size)
        rounded = quantize(weight, curvature, self._grid, size)
        published = published_tensors(rounded, self._grid.bits)
        return QuantizedBlock(
            done.tensors | {f"{name}.{part}": tensor.cpu() for part, tensor in published.items()},
            done.quantized.with_linears({name: self._dense(name, rounded)}),
            done.nearest.with_linears({name: self._dense(name, nearest)}),
            done.dampings | {name: curvature.damping},
        )

    def _dense(self, name: str, rounded: Rounded) -> DenseWeight:
        original = self._block.linears[name]
        dtype = getattr(torch, self._settings.dtype)
        return dequantized(rounded, self._grid.bits, dtype, original.bias)
