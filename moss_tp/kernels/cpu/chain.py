"""Runs blocks as programs: one by one, or all of a model's blocks with a single call from Python.

Blocks of one layout, mostly all of a model's, share a program and differ only in addresses. The
program of a step is kept, and run again when a later step has the same layout.
"""

from collections.abc import Hashable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Self

import numpy as np
import torch
from torch import Tensor

from moss_tp.kernels.base import BlockWeights, ChainKernel
from moss_tp.kernels.cpu.attention.plan import CpuPlan, cpu_plan
from moss_tp.kernels.cpu.block import PackedBlock
from moss_tp.kernels.cpu.microkernel.mul_add import MulAdd
from moss_tp.kernels.cpu.runtime.pool import ProgramPool
from moss_tp.kernels.cpu.runtime.program import Ints, Program
from moss_tp.kernels.kv_cache import check_attention
from moss_tp.kernels.plan import AttentionPlan
from moss_tp.kernels.rotary import Rotary

Layers = tuple[tuple[Tensor, Tensor], ...]  # K and V cache of each block

ROWS_OF_LAYOUT = 64  # a decode step of as many sequences as an engine runs by default

# Columns of a program's inputs; the block's tensors follow.
_X, _OUT, _K_CACHE, _V_CACHE, _TENSORS = range(5)


class BlockProgram:
    """The ops of a block for a number of rows, with scratch memory, to run for `num_blocks`
    blocks in sequence."""

    def __init__(
        self,
        block: PackedBlock,
        num_blocks: int,
        x: Tensor,
        rotary: Rotary,
        cache: tuple[Tensor, Tensor],
        plan: CpuPlan,
    ) -> None:
        self._step = plan.step.copy()
        self._program, out = Program(), torch.empty_like(x)
        block.add_ops(self._program, x, out, rotary, cache, replace(plan, step=self._step))
        self._program.declare_inputs((x, out, *cache, *block.tensors))
        # Activations between blocks alternate between two buffers.
        self._buffers = [torch.empty_like(x) for _ in range(min(2, num_blocks - 1))]
        between = [self._buffers[i % 2].data_ptr() for i in range(num_blocks - 1)]
        self._inputs = np.empty((num_blocks, _TENSORS + len(block.tensors)), np.int64)
        self._inputs[1:, _X] = self._inputs[:-1, _OUT] = between
        self._layers: Layers = ()  # of the last run

    def run(self, x: Tensor, out: Tensor, layers: Layers, tensors: Ints, plan: CpuPlan) -> None:
        """`tensors`: the addresses of each block's tensors, (num_blocks, count)."""
        self._step[:] = plan.step
        self._inputs[0, _X], self._inputs[-1, _OUT] = x.data_ptr(), out.data_ptr()
        self._inputs[:, _TENSORS:] = tensors
        if layers is not self._layers:
            caches = [(k_cache.data_ptr(), v_cache.data_ptr()) for k_cache, v_cache in layers]
            self._inputs[:, _K_CACHE:_TENSORS] = caches
            self._layers = layers
        self._program.run(self._inputs)


class PanelChain:
    """Blocks of one layout in sequence. Its programs are kept in `pool`, which chains of one model
    may share."""

    def __init__(
        self, blocks: Sequence[PackedBlock], pool: ProgramPool[BlockProgram] | None = None
    ) -> None:
        self._blocks = tuple(blocks)
        self._layout = self._blocks[0].layout
        assert all(block.layout == self._layout for block in blocks), "blocks differ in layout"
        self._tensors = np.array([[t.data_ptr() for t in block.tensors] for block in blocks])
        self._pool = ProgramPool[BlockProgram]() if pool is None else pool

    def __call__(
        self,
        x: Tensor,
        rotary: Rotary,
        layers: Sequence[tuple[Tensor, Tensor]],
        plan: AttentionPlan,
    ) -> Tensor:
        """See `base.ChainKernel`. Raises ValueError for a cache that does not fit."""
        own_plan, caches = cpu_plan(plan), tuple(layers)
        key = self._key(x, rotary, caches[0][0], own_plan, plan.block_size)
        program = self._pool.take(key, len(x))
        if program is None:
            block = self._blocks[0]
            check_attention(block.empty_qkv(len(x)), caches[0], plan, block.dtype)
            program = BlockProgram(block, len(self._blocks), x, rotary, caches[0], own_plan)
        out = torch.empty_like(x)
        program.run(x, out, caches, self._tensors, own_plan)
        self._pool.put(key, program, len(x))
        return out

    def _key(
        self, x: Tensor, rotary: Rotary, k_cache: Tensor, plan: CpuPlan, block_size: int
    ) -> Hashable:
        """Everything that a program depends on, except for its inputs; and what `check_attention`
        checks of the plan and a K cache, since only a program that is built is checked."""
        return (
            self._layout,
            len(self._blocks),
            x.shape,
            plan.layout,
            rotary.cos.data_ptr(),
            k_cache.dtype,
            k_cache.shape[1:],
            k_cache.stride(),
            block_size,
            torch.get_num_threads(),
        )


class ChainOfChains:
    """Blocks in sequence, some of another layout than the one before: a model of which only some
    modules are quantized."""

    def __init__(self, blocks: Sequence[PackedBlock]) -> None:
        runs = [list(run) for _, run in groupby(blocks, key=lambda block: block.layout)]
        self._chains = [(len(run), PanelChain(run)) for run in runs]

    def __call__(
        self,
        x: Tensor,
        rotary: Rotary,
        layers: Sequence[tuple[Tensor, Tensor]],
        plan: AttentionPlan,
    ) -> Tensor:
        """See `base.ChainKernel`."""
        first = 0
        for count, chain in self._chains:
            x = chain(x, rotary, layers[first : first + count], plan)
            first += count
        return x


def chain_of(blocks: "Sequence[PanelBlock]") -> ChainKernel:
    packed = [block.packed for block in blocks]
    is_uniform = len({block.layout for block in packed}) == 1
    return PanelChain(packed) if is_uniform else ChainOfChains(packed)


class PanelBlock:
    """A single block, for ranks that exchange activations between blocks."""

    def __init__(
        self,
        weights: BlockWeights,
        mul_add: MulAdd | None = None,
        pool: ProgramPool[BlockProgram] | None = None,
    ) -> None:
        self._take(PackedBlock.pack(weights, mul_add), pool)

    @classmethod
    def over(cls, packed: PackedBlock, pool: ProgramPool[BlockProgram]) -> Self:
        """On weights that are packed already."""
        block = cls.__new__(cls)
        packed.compile()
        block._take(packed, pool)
        return block

    def _take(self, packed: PackedBlock, pool: ProgramPool[BlockProgram] | None) -> None:
        self.packed = packed
        self._bias = packed.second.bias[: packed.second.outputs]
        self._chain = PanelChain((packed.of_one_rank(),), pool)

    def __call__(
        self, x: Tensor, rotary: Rotary, cache: tuple[Tensor, Tensor], plan: AttentionPlan
    ) -> Tensor:
        return self._chain(x, rotary, (cache,), plan)

    def finish(self, total: Tensor, x: Tensor) -> Tensor:
        """See `BlockKernel`. Overwrites `total`."""
        return total.add_(self._bias).add_(x)


class BlockFactory:
    """Makes the blocks of one model, which share their programs. Where blocks differ in layout, as
    ranks' parts of weights in act-order do, a step takes a program for each layout: the pool then
    holds those of a step of ROWS_OF_LAYOUT rows."""

    def __init__(self, pool: ProgramPool[BlockProgram] | None = None) -> None:
        self._pool = ProgramPool[BlockProgram]() if pool is None else pool
        self._layouts: set[Hashable] = set()

    def __call__(self, weights: BlockWeights) -> PanelBlock:
        return self._counted(PanelBlock(weights, pool=self._pool))

    def over(self, packed: PackedBlock) -> PanelBlock:
        """A block of weights that are packed already."""
        return self._counted(PanelBlock.over(packed, self._pool))

    def _counted(self, block: PanelBlock) -> PanelBlock:
        self._layouts.add(block.packed.layout)
        self._pool.max_rows = max(self._pool.max_rows, ROWS_OF_LAYOUT * len(self._layouts))
        return block
