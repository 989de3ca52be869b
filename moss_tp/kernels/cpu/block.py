"""A block in one program over packed weights in bf16; sums and what goes between blocks are fp32.

    normed        = layer_norm(x)
    qkv | mixed   = normed @ [qkv_proj | fc_in]      gelu on the second
    mixed         = [attention(qkv) | gelu(fc_in)]
    partial       = mixed @ [out_proj | fc_out] (+ x)

So each weight is read once, in two products, and Python is entered once a block. What is read by
a product of bf16 pairs (see `products`) is rounded to bf16.
"""

import torch
from torch import Tensor

from moss_tp.kernels.block import BlockWeights
from moss_tp.kernels.checks import check_attention
from moss_tp.kernels.cpu.attention import add_attention
from moss_tp.kernels.cpu.gemm import Packed, Target, add_gemm
from moss_tp.kernels.cpu.norm import add_norm
from moss_tp.kernels.cpu.products import Product
from moss_tp.kernels.cpu.team import Program
from moss_tp.kernels.plan import AttentionPlan
from moss_tp.layers.rotary import Rotary


class PanelLinear:
    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        has_gelu: bool = False,
        product: Product | None = None,
    ) -> None:
        self._packed = Packed.pack(weight, bias, product)
        self._has_gelu = has_gelu

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        out = torch.empty(len(x), self._packed.outputs)
        program, x = Program(), x.to(self._packed.takes)
        add_gemm(program, x, self._packed, Target(out, self._has_gelu, residual))
        program.run()
        return out


class PanelBlock:
    """Blocks of one model share a step's program: only addresses differ."""

    def __init__(self, weights: BlockWeights, product: Product | None = None) -> None:
        norm, eps = weights.norm, torch.tensor([weights.eps])
        parts = (Packed.pack(weights.qkv, None, product), Packed.pack(*weights.fc_in, product))
        second, bias = weights.fc_out
        self._widths = (parts[0].outputs, parts[1].outputs)
        self._norm = (norm[0].float(), norm[1].float(), eps)
        self._first = Packed.stack(parts)
        self._second = Packed.pack(torch.cat((weights.out, second), dim=1), bias, product)
        self._head_dim, self._cache_dtype = weights.head_dim, weights.qkv.dtype
        self._adds_residual = weights.adds_residual
        products = (self._first, self._second)
        self._tensors = (*self._norm, *(part for p in products for part in (p.panels, p.bias)))
        self._addresses = tuple(tensor.data_ptr() for tensor in self._tensors)
        self._geometry = (PanelBlock, self._widths, self._head_dim, self._adds_residual)

    def __call__(
        self, x: Tensor, rotary: Rotary, cache: tuple[Tensor, Tensor], plan: AttentionPlan
    ) -> Tensor:
        out = torch.empty_like(x)
        program = plan.prepared.get(self._geometry)
        if program is None:
            program = self._prepare(x, out, rotary, cache, plan)
            plan.prepared[self._geometry] = program
        own = (tensor.data_ptr() for tensor in (x, out, *cache))
        program.run((*own, *self._addresses))
        return out

    def _prepare(
        self,
        x: Tensor,
        out: Tensor,
        rotary: Rotary,
        cache: tuple[Tensor, Tensor],
        plan: AttentionPlan,
    ) -> Program:
        rows, (qkv_width, inner) = len(x), self._widths
        width = qkv_width // 3
        normed = torch.empty_like(x, dtype=self._first.takes)
        mixed = torch.empty(rows, width + inner, dtype=self._second.takes)
        qkv = torch.empty(rows, 3, width // self._head_dim, self._head_dim)
        check_attention(qkv, cache, plan, self._cache_dtype)
        program = Program()
        add_norm(program, x, *self._norm, normed)
        targets = (Target(qkv.view(rows, -1)), Target(mixed[:, width:], has_gelu=True))
        add_gemm(program, normed, self._first, *targets)
        add_attention(program, qkv, mixed, rotary, cache, plan, self._head_dim**-0.5)
        residual = x if self._adds_residual else None
        add_gemm(program, mixed, self._second, Target(out, residual=residual))
        program.leave_open((x, out, *cache, *self._tensors))
        return program
