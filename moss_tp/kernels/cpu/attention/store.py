"""Rotary on q and k, and the step's K and V into the paged cache. One task is one row.

`qkv (T, 3, H, D)` is fp32; q is rotated and scaled in place, so that decode and prefill need not
scale their scores.
"""

from typing import NamedTuple

import numpy as np
from torch import Tensor

from moss_tp.kernels.cpu.attention.cache_rows import row_bytes, row_dtype, store_row
from moss_tp.kernels.cpu.attention.plan import CpuPlan, StepAddresses
from moss_tp.kernels.cpu.runtime.program import Program
from moss_tp.kernels.rotary import Rotary
from moss_tp.native.bf16 import fp32_from_bits
from moss_tp.native.compiled import inner, kernel
from moss_tp.native.llvm import FP32_BYTES
from moss_tp.native.memory import fp32_at, int64_at
from moss_tp.native.params import Address, params_reader


class StoreParams(NamedTuple):
    step: Address  # StepAddresses
    qkv: Address  # (T, 3, H, D) fp32, contiguous
    cos: Address  # (max_positions, rotary_dim / 2) fp32
    sin: Address
    k_cache: Address
    v_cache: Address
    num_heads: int
    head_dim: int
    block_size: int
    rotary_dim: int
    cache_dtype: int
    scale_bits: int  # of an fp32


_read_params, _read_step = params_reader(StoreParams), params_reader(StepAddresses)


def add_store(
    program: Program,
    qkv: Tensor,
    rotary: Rotary,
    cache: tuple[Tensor, Tensor],
    plan: CpuPlan,
    scale: float,
) -> None:
    """`cache`: K and V `(num_blocks, H, block_size)` rows, see `cache_rows`."""
    k_cache, v_cache = cache
    params = StoreParams(
        step=plan.step,
        qkv=qkv,
        cos=rotary.cos,
        sin=rotary.sin,
        k_cache=k_cache,
        v_cache=v_cache,
        num_heads=k_cache.shape[1],
        head_dim=qkv.shape[-1],
        block_size=k_cache.shape[2],
        rotary_dim=rotary.dim,
        cache_dtype=row_dtype(k_cache.dtype),
        scale_bits=int(np.float32(scale).view(np.uint32)),
    )
    program.add(_store, len(qkv), params)


@inner
def _rotate(x: int, cos: int, sin: int, rotary_dim: int) -> None:
    """Rotates the interleaved pairs of one head, in place."""
    values, cosines, sines = fp32_at(x), fp32_at(cos), fp32_at(sin)
    for pair in range(rotary_dim // 2):
        even, odd = values[2 * pair], values[2 * pair + 1]
        values[2 * pair] = even * cosines[pair] - odd * sines[pair]
        values[2 * pair + 1] = odd * cosines[pair] + even * sines[pair]


@kernel
def _store(params: int, row: int) -> None:
    p = _read_params(params)
    step = _read_step(p.step)
    num_heads, head_dim, block_size = p.num_heads, p.head_dim, p.block_size
    scale = fp32_from_bits(np.uint32(p.scale_bits))
    position, slot = int64_at(step.positions)[row], int64_at(step.slot_mapping)[row]
    angles = position * (p.rotary_dim // 2) * FP32_BYTES
    part_bytes = num_heads * head_dim * FP32_BYTES  # of q, k or v in a row
    first = p.qkv + row * 3 * part_bytes
    for head in range(num_heads):
        q = first + head * head_dim * FP32_BYTES
        k, v = q + part_bytes, q + 2 * part_bytes
        _rotate(q, p.cos + angles, p.sin + angles, p.rotary_dim)
        values = fp32_at(q)
        for i in range(head_dim):
            values[i] *= scale
        _rotate(k, p.cos + angles, p.sin + angles, p.rotary_dim)
        cache_row = (slot // block_size * num_heads + head) * block_size + slot % block_size
        offset = cache_row * row_bytes(head_dim, p.cache_dtype)
        store_row(fp32_at(k), p.k_cache + offset, head_dim, p.cache_dtype)
        store_row(fp32_at(v), p.v_cache + offset, head_dim, p.cache_dtype)
