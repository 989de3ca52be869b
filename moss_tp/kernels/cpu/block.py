"""A transformer block as ops of one program, on packed weights.

    normed        = layer_norm(x)
    qkv | mixed   = normed @ [qkv_proj | fc_in]      GELU on the second
    mixed         = [attention(qkv) | gelu(fc_in)]
    out           = mixed @ [out_proj | fc_out]      leaf by leaf, added as a tree
    out           = out + bias + x                   on a single rank; else `finish`, after the sum

Each weight is read once, in two products; in three where qkv_proj and fc_in cannot be stacked.
Sums, and activations between blocks, are fp32; inputs of products of bf16 (`microkernel.mul_add`)
are rounded to bf16. Every op computes a row in one order, whatever the rows beside it.
"""

from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from moss_tp.kernels.base import BlockWeights, Weight
from moss_tp.kernels.cpu.attention.attend import add_attention
from moss_tp.kernels.cpu.attention.plan import CpuPlan
from moss_tp.kernels.cpu.linear.epilogue import GemmOutput
from moss_tp.kernels.cpu.linear.gemm import Packed, add_gemm, compile_for, pack_for_gemm
from moss_tp.kernels.cpu.microkernel.mul_add import MulAdd
from moss_tp.kernels.cpu.norm import add_norm
from moss_tp.kernels.cpu.runtime.program import Program
from moss_tp.kernels.leaves import leaf_spans
from moss_tp.kernels.quantized import concat_inputs
from moss_tp.kernels.rotary import Rotary


@dataclass(frozen=True)
class PackedBlock:
    """A block's weights as its program reads them."""

    norm: tuple[Tensor, Tensor, Tensor]  # weight, bias and epsilon, in fp32
    first: tuple[Packed, ...]  # qkv_proj and fc_in, or both as one
    second: Packed  # out_proj and fc_out
    widths: tuple[int, int]  # of qkv_proj's outputs and fc_in's
    head_dim: int
    is_whole: bool = True  # else it ends with the rank's leaves

    @classmethod
    def pack(cls, weights: BlockWeights, mul_add: MulAdd | None = None) -> Self:
        norm_weight, norm_bias = weights.norm
        second = concat_inputs(weights.out, weights.fc_out)
        leaves = leaf_spans(weights.out.inputs, weights.fc_out.inputs, weights.leaves)
        return cls(
            norm=(norm_weight.float(), norm_bias.float(), torch.tensor([weights.eps])),
            first=_pack_pair(weights.qkv, weights.fc_in, mul_add),
            second=pack_for_gemm(second, mul_add, leaves),
            widths=(weights.qkv.outputs, weights.fc_in.outputs),
            head_dim=weights.head_dim,
        )

    def compile(self) -> None:
        """The products' kernels, which `pack` compiles, too."""
        for weight in (*self.first, self.second):
            compile_for(weight)

    def of_one_rank(self) -> Self:
        """The same block up to the sum of its leaves, which others are added to."""
        second: Any = self.second
        bias = torch.zeros_like(second.bias)
        return replace(self, second=replace(second, bias=bias), is_whole=False)

    @property
    def dtype(self) -> torch.dtype:
        """Of the model, and of a KV cache that is not int8."""
        return self.second.dtype

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What differs between blocks of one layout."""
        packed = (*self.first, self.second)
        return (*self.norm, *(part for weight in packed for part in weight.tensors))

    @property
    def layout(self) -> tuple[object, ...]:
        """Equal for blocks that the same program can run."""
        layouts = (weight.layout for weight in (*self.first, self.second))
        return (self.widths, self.head_dim, self.is_whole, *layouts)

    def empty_qkv(self, num_rows: int) -> Tensor:
        return torch.empty(num_rows, 3, self.widths[0] // 3 // self.head_dim, self.head_dim)

    def add_ops(
        self,
        program: Program,
        x: Tensor,
        out: Tensor,
        rotary: Rotary,
        cache: tuple[Tensor, Tensor],
        plan: CpuPlan,
    ) -> None:
        """From `x` to `out`, both `(T, hidden)` fp32; scratch tensors belong to the program."""
        num_rows, (qkv_width, inner) = len(x), self.widths
        width = qkv_width // 3
        normed = torch.empty_like(x, dtype=self.first[0].x_dtype)
        mixed = torch.empty(num_rows, width + inner, dtype=self.second.x_dtype)
        qkv = self.empty_qkv(num_rows)
        add_norm(program, x, *self.norm, normed)
        outputs = (GemmOutput(qkv.view(num_rows, -1)), GemmOutput(mixed[:, width:], has_gelu=True))
        if len(self.first) == 1:
            add_gemm(program, normed, self.first[0], *outputs)
        else:
            for weight, output in zip(self.first, outputs, strict=True):
                add_gemm(program, normed, weight, output)
        add_attention(program, qkv, mixed, rotary, cache, plan, self.head_dim**-0.5)
        residual = x if self.is_whole else None
        add_gemm(program, mixed, self.second, GemmOutput(out, residual=residual))


def _pack_pair(one: Weight, two: Weight, mul_add: MulAdd | None) -> tuple[Packed, ...]:
    """Two weights that read the same input: as one where they can be stacked."""
    packed = (pack_for_gemm(one, mul_add), pack_for_gemm(two, mul_add))
    if packed[0].x_dtype != packed[1].x_dtype:
        packed = (pack_for_gemm(one.dense(), mul_add), pack_for_gemm(two.dense(), mul_add))
    both = packed[0].stack(packed[1]) if type(packed[0]) is type(packed[1]) else None
    return packed if both is None else (both,)
