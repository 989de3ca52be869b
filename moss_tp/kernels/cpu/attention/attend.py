"""Attention over the paged cache on CPU, as one program: rotary, store, attend.

Any head size with fp32 arithmetic; even ones with bf16 dot products.
"""

import torch
from torch import Tensor

from moss_tp.kernels.cpu.attention.kernel import add_attend
from moss_tp.kernels.cpu.attention.operands import Operands, best_operands
from moss_tp.kernels.cpu.attention.plan import CpuPlan, cpu_plan
from moss_tp.kernels.cpu.attention.store import add_store
from moss_tp.kernels.cpu.runtime.program import Program
from moss_tp.kernels.kv_cache import check_attention
from moss_tp.kernels.plan import AttentionPlan
from moss_tp.kernels.rotary import Rotary


def add_attention(
    program: Program,
    qkv: Tensor,
    out: Tensor,
    rotary: Rotary,
    cache: tuple[Tensor, Tensor],
    plan: CpuPlan,
    scale: float,
    operands: Operands | None = None,
) -> None:
    """`qkv (T, 3, H, D)` in fp32, whose q and k are rotated in place, to `out (T, H * D)` in fp32
    or bf16 with any row stride. `operands` are the best ones for this machine by default; a cache
    is written and read with the same ones."""
    has_bf16 = torch.bfloat16 in (cache[0].dtype, out.dtype)
    operands = operands or best_operands(has_bf16, qkv.shape[3])
    add_store(program, qkv, rotary, cache, plan, scale, operands.per_step)
    add_attend(program, qkv, out, cache, plan, operands)


def attend(
    qkv: Tensor,
    rotary: Rotary,
    cache: tuple[Tensor, Tensor],
    plan: AttentionPlan,
    scale: float,
    operands: Operands | None = None,
) -> Tensor:
    """See `reference.attention.attend`, and `add_attention`; `qkv` in fp32, bf16 or fp16. How the
    cache's bytes are used is written in `layout`."""
    check_attention(qkv, cache, plan, qkv.dtype)
    wide = qkv.float().contiguous()
    out = torch.empty(len(qkv), qkv.shape[2] * qkv.shape[3], dtype=qkv.dtype)
    program = Program()
    add_attention(program, wide, out, rotary, cache, cpu_plan(plan), scale, operands)
    program.run()
    return out
