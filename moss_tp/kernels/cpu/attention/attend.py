"""Attention over the paged cache on CPU, as one program: rotary, store, decode rows, prefill tiles.

Any head size in fp32; even ones in bf16, where two neighbours share a word.
"""

import torch
from torch import Tensor

from moss_tp.kernels.cpu.attention.decode import add_decode
from moss_tp.kernels.cpu.attention.plan import CpuPlan, cpu_plan
from moss_tp.kernels.cpu.attention.prefill import add_prefill
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
) -> None:
    """`qkv (T, 3, H, D)` in fp32, whose q and k are rotated in place, to `out (T, H * D)` in fp32
    or bf16 with any row stride."""
    add_store(program, qkv, rotary, cache, plan, scale)
    add_decode(program, qkv, out, cache, plan)
    add_prefill(program, qkv, out, cache, plan)


def attend(
    qkv: Tensor, rotary: Rotary, cache: tuple[Tensor, Tensor], plan: AttentionPlan, scale: float
) -> Tensor:
    """See `reference.attention.attend`; `qkv` in fp32 or bf16."""
    check_attention(qkv, cache, plan, qkv.dtype)
    wide = qkv.float().contiguous()
    out = torch.empty(len(qkv), qkv.shape[2] * qkv.shape[3], dtype=qkv.dtype)
    program = Program()
    add_attention(program, wide, out, rotary, cache, cpu_plan(plan), scale)
    program.run()
    return out
