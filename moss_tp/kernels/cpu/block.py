"""A block in one program over packed weights, in fp32 arithmetic whatever the weights are.

    normed        = layer_norm(x)
    qkv | mixed   = normed @ [qkv_proj | fc_in]      gelu on the second
    mixed         = [attention(qkv) | gelu(fc_in)]
    partial       = mixed @ [out_proj | fc_out] (+ x)

So each weight is read once, in two products, and Python is entered once a block.
"""

import torch
from torch import Tensor

from moss_tp.kernels.block import BlockWeights
from moss_tp.kernels.checks import check_attention
from moss_tp.kernels.cpu.attention import add_attention
from moss_tp.kernels.cpu.gemm import Packed, Target, add_gemm
from moss_tp.kernels.cpu.norm import add_norm
from moss_tp.kernels.cpu.team import Program
from moss_tp.kernels.plan import AttentionPlan
from moss_tp.layers.rotary import Rotary


class PanelLinear:
    def __init__(self, weight: Tensor, bias: Tensor | None, has_gelu: bool = False) -> None:
        self._packed = Packed.pack(weight, bias)
        self._has_gelu = has_gelu

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        out = torch.empty(len(x), self._packed.outputs)
        program = Program()
        add_gemm(program, x, self._packed, Target(out, self._has_gelu, residual))
        program.run()
        return out


class PanelBlock:
    def __init__(self, weights: BlockWeights) -> None:
        self._norm = (weights.norm[0].float(), weights.norm[1].float())
        self._eps = torch.tensor([weights.eps])
        parts = (Packed.pack(weights.qkv, None), Packed.pack(*weights.fc_in))
        self._widths = (parts[0].outputs, parts[1].outputs)
        self._first = Packed.stack(parts)
        second_weight, bias = weights.fc_out
        self._second = Packed.pack(torch.cat((weights.out, second_weight), dim=1), bias)
        self._head_dim, self._cache_dtype = weights.head_dim, weights.qkv.dtype
        self._adds_residual = weights.adds_residual

    def __call__(
        self, x: Tensor, rotary: Rotary, cache: tuple[Tensor, Tensor], plan: AttentionPlan
    ) -> Tensor:
        rows = len(x)
        qkv_width, inner = self._widths
        heads_width = qkv_width // 3
        normed, partial = torch.empty_like(x), torch.empty_like(x)
        qkv = torch.empty(rows, 3, heads_width // self._head_dim, self._head_dim)
        check_attention(qkv, cache, plan, self._cache_dtype)
        mixed = torch.empty(rows, heads_width + inner)
        program = Program()
        add_norm(program, x, *self._norm, self._eps, normed)
        targets = (Target(qkv.view(rows, -1)), Target(mixed[:, heads_width:], has_gelu=True))
        add_gemm(program, normed, self._first, *targets)
        scale = self._head_dim**-0.5
        add_attention(program, qkv, mixed, rotary, cache, plan, scale)
        residual = x if self._adds_residual else None
        add_gemm(program, mixed, self._second, Target(partial, residual=residual))
        program.run()
        return partial
