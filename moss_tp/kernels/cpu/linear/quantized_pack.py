"""A quantized weight as the GEMM reads it: levels in panels, and scales beside them.

    run      inputs of one group, at most MAX_RUN, padded to whole units (see `levels`)
    places   the input in each place: leaves one after the other, in each its groups
    levels   a group of panels (the columns of one task) after the other: (units, panels)
    scales   likewise: of each run GROUP scales in fp16, then GROUP times `middle - zero`

x is gathered into the places once, see `gather`, unless it has each span in that order. Where every
zero is the middle, as in symmetric quantization, zeros are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor

from moss_tp.kernels.cpu.linear.leaf_sums import Leaves, joined, merges_of, num_levels, whole
from moss_tp.kernels.cpu.linear.levels import LEVELS, UNIT
from moss_tp.kernels.cpu.microkernel.mul_add import (
    AMX_X16_BF16,
    DOT_X16_BF16,
    FMA_X8_BF16,
    FMA_X8_FP16,
    FMA_X8_FP32,
    FMA_X16_FP16,
    FMA_X16_FP32,
    GROUP,
    GROUP_PANELS,
    PANEL,
    MulAdd,
)
from moss_tp.kernels.quantized import QuantizedWeight
from moss_tp.kernels.words import pack
from moss_tp.native.amx import has_amx
from moss_tp.native.huge_pages import huge_cat, huge_zeros
from moss_tp.native.vectors import has_cpu_feature
from moss_tp.quant_config import WORD_BITS, in_every_place

MAX_RUN = 1024  # inputs: an unpacked run stays in the L2 cache
_CHUNK = 16 * GROUP  # columns packed at a time: what bounds the memory that it takes
_PAD = -1  # in `order`

# Levels are exact in fp32 as in bf16, so weights of either dtype take the same FMAs.
_FOR_LEVELS: dict[MulAdd, MulAdd] = {
    AMX_X16_BF16: AMX_X16_BF16,
    DOT_X16_BF16: DOT_X16_BF16,
    FMA_X8_BF16: FMA_X8_FP32,
    FMA_X8_FP16: FMA_X8_FP32,
    FMA_X8_FP32: FMA_X8_FP32,
    FMA_X16_FP16: FMA_X16_FP32,
    FMA_X16_FP32: FMA_X16_FP32,
}


@dataclass(frozen=True)
class Runs:
    """How the inputs of a weight lie in its panels."""

    starts: Tensor  # (runs + 1,) int64, in units
    x_starts: Tensor  # (runs,) int64: where each begins in x, or in the gathered x
    spans: Tensor  # (spans, 2) int64: its runs; merges behind it, see `leaf_sums`
    levels: int  # of sums
    groups: Tensor  # (runs,) int64: whose scales and zeros
    places: Tensor  # (units * UNIT,) int32; _PAD where there is no input
    is_gathered: bool  # whether x is copied into the places

    @classmethod
    def of(cls, groups: Tensor, leaves: Leaves | None = None) -> "Runs":
        """`groups (inputs,)`: each input's."""
        leaves = joined(leaves or whole(len(groups)))
        by_leaf = [_runs(_inputs(ranges), groups) for ranges in leaves]
        runs = [run for leaf in by_leaf for run in leaf]
        padded = [torch.nn.functional.pad(run, (0, -len(run) % UNIT), value=_PAD) for run in runs]
        starts = [0, *accumulate(len(run) // UNIT for run in padded)]
        places = torch.cat(padded)
        own = torch.cat([_inputs(ranges) for ranges in leaves])
        is_gathered = not torch.equal(places, own)
        if is_gathered:  # a leaf is one span
            x_starts, counts = starts[:-1], [len(leaf) for leaf in by_leaf]
            leaves = [ranges[:1] for ranges in leaves]
        else:
            x_starts = [int(run[0]) // UNIT for run in runs]
            counts = [
                sum(int(run[0]) in span for run in leaf)
                for leaf, ranges in zip(by_leaf, leaves, strict=True)
                for span in ranges
            ]
        return cls(
            starts=torch.tensor(starts),
            x_starts=torch.tensor(x_starts),
            spans=torch.tensor(list(zip(counts, merges_of(leaves), strict=True))),
            levels=num_levels(len(leaves)),
            groups=torch.stack([groups[run[0]] for run in runs]).long(),
            places=places.int(),
            is_gathered=is_gathered,
        )

    @property
    def units(self) -> int:
        return int(self.starts[-1])

    def is_same(self, other: "Runs") -> bool:
        """Whether weights of both can share x."""
        tensors = ((self.places, other.places), (self.starts, other.starts))
        return all(torch.equal(own, others) for own, others in tensors)


@dataclass(frozen=True)
class QuantizedPanels:
    """`(outputs, inputs)`, padded to whole groups of panels."""

    panels: Tensor  # (groups of panels, units * GROUP_PANELS * bytes of a unit) uint8
    scales: Tensor  # (groups of panels, runs, bytes) uint8
    bias: Tensor  # (groups of panels * GROUP,) fp32
    runs: Runs
    outputs: int
    inputs: int
    mul_add: MulAdd
    bits: int
    has_zeros: bool
    dtype: torch.dtype  # of the model

    @property
    def x_dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.mul_add.x_per_step == 2 else torch.float32

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What differs between weights of one layout."""
        runs = self.runs
        order = (runs.places,) if runs.is_gathered else ()
        return (
            self.panels, self.scales, self.bias, runs.starts, runs.x_starts, runs.spans, *order
        )  # fmt: skip

    @property
    def layout(self) -> tuple[object, ...]:
        """Equal for weights that the same program can multiply by."""
        shapes = (tensor.shape for tensor in self.tensors)
        return (
            self.mul_add, self.bits, self.has_zeros, self.inputs, self.dtype, self.runs.levels,
            *shapes,
        )  # fmt: skip

    def stack(self, other: "QuantizedPanels") -> "QuantizedPanels | None":
        """See `PackedWeight.stack`; None for weights whose inputs lie in another order."""
        own, others = (
            (weight.mul_add, weight.bits, weight.has_zeros, weight.dtype)
            for weight in (self, other)
        )
        if own != others or not self.runs.is_same(other.runs):
            return None
        return replace(
            self,
            panels=huge_cat([self.panels, other.panels]),
            scales=huge_cat([self.scales, other.scales]),
            bias=torch.cat((self.bias, other.bias)),
        )


def quantized_mul_add(dtype: torch.dtype) -> MulAdd:
    """The fastest on this machine for a model of `dtype`."""
    if dtype == torch.bfloat16 and has_amx():
        return AMX_X16_BF16
    if dtype == torch.bfloat16 and has_cpu_feature("avx512bf16"):
        return DOT_X16_BF16
    return FMA_X16_FP32 if has_cpu_feature("avx512f") else FMA_X8_FP32


def pack_quantized(
    weight: QuantizedWeight, mul_add: MulAdd | None = None, leaves: Leaves | None = None
) -> QuantizedPanels:
    """For `mul_add`, or for the best that this machine has; in `leaves`, or in one."""
    own = _FOR_LEVELS[mul_add] if mul_add else quantized_mul_add(weight.dtype)
    runs, outputs = Runs.of(weight.groups, leaves), weight.outputs
    tasks, line = -(-outputs // GROUP), GROUP_PANELS * LEVELS[own, weight.bits].unit_bytes
    panels = huge_zeros(tasks, runs.units * line, dtype=torch.uint8)
    for first in range(0, outputs, _CHUNK):
        units = _units(weight, runs, slice(first, first + _CHUNK), own)
        panels[first // GROUP :][: len(units)] = units
    bias = torch.zeros(tasks * GROUP)
    if weight.bias is not None:
        bias[:outputs] = weight.bias
    middle = 2 ** (weight.bits - 1)
    has_zeros = bool((weight.zeros[runs.groups] != middle).any())
    return QuantizedPanels(
        panels, _scales(weight, runs, has_zeros), bias, runs, outputs, weight.inputs, own,
        weight.bits, has_zeros, weight.dtype,
    )  # fmt: skip


def _inputs(ranges: Sequence[range]) -> Tensor:
    return torch.cat([torch.arange(span.start, span.stop) for span in ranges])


def _runs(inputs: Tensor, groups: Tensor) -> list[Tensor]:
    """The `inputs` of a leaf as runs of one group each, in the order of groups."""
    own = groups[inputs]
    by_group = inputs[torch.argsort(own, stable=True)]
    counts = torch.unique(own, return_counts=True)[1].tolist()
    return [run for inputs in torch.split(by_group, counts) for run in torch.split(inputs, MAX_RUN)]


def _units(weight: QuantizedWeight, runs: Runs, columns: slice, mul_add: MulAdd) -> Tensor:
    """The panels of some columns: (groups of panels, bytes) uint8, padded with zeros."""
    words = _ordered_words(replace(weight, packed=weight.packed[:, columns]), runs)
    padded = torch.nn.functional.pad(words, (0, -words.shape[1] % GROUP))
    # With its highest bit flipped a level is `q - middle`, in two's complement.
    if weight.bits == 4:
        return _units_of_4_bits(padded ^ in_every_place(8, 4), mul_add)
    return _units_of_8_bits(padded ^ in_every_place(128, 8), mul_add)


def _ordered_words(weight: QuantizedWeight, runs: Runs) -> Tensor:
    """`packed` with its inputs in the places of `runs`."""
    if not runs.is_gathered:  # whole units, so whole words
        per_word = WORD_BITS // weight.bits
        return weight.packed[runs.places[::per_word].long() // per_word]
    levels = weight.levels()[runs.places.long()]  # _PAD is any input: x is zero there
    return pack(levels, weight.bits)


def _units_of_4_bits(words: Tensor, mul_add: MulAdd) -> Tensor:
    """`words (units, columns)`, an input every 4 bits."""
    if mul_add.x_per_step == 2:
        words = sum(_moved(words, number) for number in range(UNIT))  # type: ignore[assignment]
    units, columns = words.shape
    tasks = words.view(units, columns // GROUP, GROUP).transpose(0, 1)
    return tasks.reshape(len(tasks), -1).view(torch.uint8)


def _moved(words: Tensor, number: int) -> Tensor:
    """Input `number` where a K step of pairs has it: the odd inputs above the even ones."""
    to = 4 * (number // 2) + 16 * (number % 2)
    level = (words >> 4 * number) & 15
    return level << to


def _units_of_8_bits(words: Tensor, mul_add: MulAdd) -> Tensor:
    """`words (2 * units, columns)`, an input in each byte."""
    count, pair = 4 // mul_add.x_per_step, mul_add.x_per_step
    levels = words.view(torch.uint8).view(len(words) // 2, 2, -1, GROUP_PANELS, PANEL, count, pair)
    # unit, word, task, panel, column, step, pair: -> task, unit, panel, word, step, column, pair
    tasks = levels.permute(2, 0, 3, 1, 5, 4, 6)
    return tasks.reshape(len(tasks), -1)


def _scales(weight: QuantizedWeight, runs: Runs, has_zeros: bool) -> Tensor:
    parts = [_by_task(weight.scales[runs.groups])]
    if has_zeros:
        middle, dtype = 2 ** (weight.bits - 1), zero_dtype(weight.bits)
        parts.append(_by_task((middle - weight.zeros[runs.groups]).to(dtype)))
    return torch.cat(parts, dim=-1)


def _by_task(values: Tensor) -> Tensor:
    """`(runs, outputs)` as bytes: (groups of panels, runs, bytes)."""
    padded = torch.nn.functional.pad(values, (0, -values.shape[1] % GROUP))
    tasks = padded.view(len(values), -1, GROUP).transpose(0, 1)
    return tasks.contiguous().view(torch.uint8)


def zero_dtype(bits: int) -> torch.dtype:
    """`middle - zero` of 8 bits may be 128."""
    return torch.int8 if bits == 4 else torch.int16
