"""A block in one program over packed weights in bf16; sums and what goes between blocks are fp32.

    normed        = layer_norm(x)
    qkv | mixed   = normed @ [qkv_proj | fc_in]      gelu on the second
    mixed         = [attention(qkv) | gelu(fc_in)]
    partial       = mixed @ [out_proj | fc_out] (+ x)

So each weight is read once, in two products, and Python is entered once a block, or once for all
blocks where nothing is to be done between them. What is read by a product of bf16 pairs (see
`products`) is rounded to bf16.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from moss_tp.kernels.base import BlockWeights, DenseWeight
from moss_tp.kernels.checks import check_attention
from moss_tp.kernels.cpu.attention import add_attention
from moss_tp.kernels.cpu.gemm import Packed, Target, add_gemm
from moss_tp.kernels.cpu.norm import add_norm
from moss_tp.kernels.cpu.products import Product
from moss_tp.kernels.cpu.team import Program
from moss_tp.kernels.plan import AttentionPlan
from moss_tp.kernels.rotary import Rotary


class PanelLinear:
    def __init__(
        self,
        weight: DenseWeight,
        has_gelu: bool = False,
        product: Product | None = None,
    ) -> None:
        self._packed = Packed.pack(weight, product)
        self._has_gelu = has_gelu

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        out = torch.empty(len(x), self._packed.outputs)
        program, x = Program(), x.to(self._packed.takes)
        add_gemm(program, x, self._packed, Target(out, self._has_gelu, residual))
        program.run()
        return out


@dataclass(frozen=True)
class PackedBlock:
    """A block's weights as its program reads them."""

    norm: tuple[Tensor, Tensor, Tensor]  # weight, bias and epsilon, in fp32
    first: Packed  # qkv_proj and fc_in
    second: Packed  # out_proj and fc_out
    widths: tuple[int, int]  # of the first's outputs
    head_dim: int
    cache_dtype: torch.dtype
    adds_residual: bool

    @classmethod
    def pack(cls, weights: BlockWeights, product: Product | None = None) -> Self:
        norm, eps = weights.norm, torch.tensor([weights.eps])
        parts = (Packed.pack(weights.qkv, product), Packed.pack(weights.fc_in, product))
        rows = torch.cat((weights.out.weight, weights.fc_out.weight), dim=1)
        return cls(
            (norm[0].float(), norm[1].float(), eps),
            Packed.stack(parts),
            Packed.pack(DenseWeight(rows, weights.fc_out.bias), product),
            (parts[0].outputs, parts[1].outputs),
            weights.head_dim,
            weights.qkv.weight.dtype,
            weights.adds_residual,
        )

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What differs from block to block."""
        products = (self.first, self.second)
        return (*self.norm, *(part for p in products for part in (p.panels, p.bias)))

    def prepare(
        self,
        x: Tensor,
        out: Tensor,
        rotary: Rotary,
        cache: tuple[Tensor, Tensor],
        plan: AttentionPlan,
    ) -> Program:
        """`x`, `out`, the cache and `tensors` are left open, in this order."""
        rows, (qkv_width, inner) = len(x), self.widths
        width = qkv_width // 3
        normed = torch.empty_like(x, dtype=self.first.takes)
        mixed = torch.empty(rows, width + inner, dtype=self.second.takes)
        qkv = torch.empty(rows, 3, width // self.head_dim, self.head_dim)
        check_attention(qkv, cache, plan, self.cache_dtype)
        program = Program()
        add_norm(program, x, *self.norm, normed)
        targets = (Target(qkv.view(rows, -1)), Target(mixed[:, width:], has_gelu=True))
        add_gemm(program, normed, self.first, *targets)
        add_attention(program, qkv, mixed, rotary, cache, plan, self.head_dim**-0.5)
        residual = x if self.adds_residual else None
        add_gemm(program, mixed, self.second, Target(out, residual=residual))
        program.leave_open((x, out, *cache, *self.tensors))
        return program


class PanelChain:
    """Blocks one after the other, all laid out alike: Python is entered once for all of them."""

    def __init__(self, blocks: Sequence[PackedBlock]) -> None:
        self._blocks = tuple(blocks)
        layouts = {(b.widths, b.head_dim, b.adds_residual, b.first.product) for b in blocks}
        assert len(layouts) == 1, layouts
        self._weights = np.array([[t.data_ptr() for t in block.tensors] for block in blocks])

    @classmethod
    def of(cls, blocks: "Sequence[PanelBlock]") -> Self:
        return cls([block.packed for block in blocks])

    def __call__(
        self,
        x: Tensor,
        rotary: Rotary,
        layers: Sequence[tuple[Tensor, Tensor]],
        plan: AttentionPlan,
    ) -> Tensor:
        first, count = self._blocks[0], len(self._blocks)
        outs = [torch.empty_like(x) for _ in range(min(2, count))]  # in turns
        key = (PanelChain, first.widths, first.head_dim, first.adds_residual)
        program = plan.prepared.get(key)
        if program is None:
            program = first.prepare(x, outs[0], rotary, layers[0], plan)
            plan.prepared[key] = program
        places = [x.data_ptr(), *(outs[i % 2].data_ptr() for i in range(count))]
        caches = [(keys.data_ptr(), values.data_ptr()) for keys, values in layers]
        program.run(np.column_stack((places[:-1], places[1:], caches, self._weights)))
        return outs[(count - 1) % 2]


class PanelBlock:
    """Blocks of one model share a step's program: only addresses differ."""

    def __init__(self, weights: BlockWeights, product: Product | None = None) -> None:
        self.packed = PackedBlock.pack(weights, product)
        self._chain = PanelChain((self.packed,))

    def __call__(
        self, x: Tensor, rotary: Rotary, cache: tuple[Tensor, Tensor], plan: AttentionPlan
    ) -> Tensor:
        return self._chain(x, rotary, (cache,), plan)
