"""Attention over the paged cache on CPU: rotates, stores, then attends, in one program.

Any head size in fp32; in bf16, whose neighbours share words, even ones.
"""

import torch
from torch import Tensor

from moss_tp.kernels.checks import check_attention
from moss_tp.kernels.cpu.cache_rows import add_store
from moss_tp.kernels.cpu.decode import add_decode
from moss_tp.kernels.cpu.prefill import add_prefill
from moss_tp.kernels.cpu.team import Program
from moss_tp.kernels.plan import AttentionPlan
from moss_tp.kernels.rotary import Rotary


def add_attention(
    program: Program,
    qkv: Tensor,
    out: Tensor,
    rotary: Rotary,
    cache: tuple[Tensor, Tensor],
    plan: AttentionPlan,
    scale: float,
) -> None:
    """`qkv (T, 3, H, D)` in fp32, of which q and k are turned in place, to `out (T, H * D)` in fp32
    or bf16."""
    add_store(program, qkv, rotary, cache, plan, scale)
    add_decode(program, qkv, out, cache, plan)
    add_prefill(program, qkv, out, cache, plan)


def attend(
    qkv: Tensor, rotary: Rotary, cache: tuple[Tensor, Tensor], plan: AttentionPlan, scale: float
) -> Tensor:
    """See `reference.attend`."""
    check_attention(qkv, cache, plan, qkv.dtype)
    wide = qkv.float().contiguous()
    out = torch.empty(len(qkv), qkv.shape[2] * qkv.shape[3])
    program = Program()
    add_attention(program, wide, out, rotary, cache, plan, scale)
    program.run()
    return out.to(qkv.dtype)
