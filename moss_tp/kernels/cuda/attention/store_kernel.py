"""Rotates a row's q and k, and writes its k and v to the cache.

The arithmetic is that of `rotary.rotate` and `kv_cache.quantize`, operation by operation.
"""

import triton.language as tl

from moss_tp.kernels.cuda.runtime.jit import jit, kernel

INT8_STEP = tl.constexpr(1 / 127)
ROUNDS = tl.constexpr(1.5 * 2**23)  # what is added to it loses its fraction, halves go to even


@jit
def _rotated(
    x: tl.tensor,  # (HEADS, DP)
    cos: tl.tensor,  # (1, DP / 2), like sin
    sin: tl.tensor,
    is_rotated: tl.tensor,
    HEADS: tl.constexpr,
    DP: tl.constexpr,
) -> tl.tensor:
    even, odd = tl.split(tl.reshape(x.to(tl.float32), (HEADS, DP // 2, 2)))
    first = tl.where(is_rotated, even * cos - odd * sin, even)
    second = tl.where(is_rotated, odd * cos + even * sin, odd)
    return tl.reshape(tl.join(first, second), (HEADS, DP)).to(x.dtype)


@jit
def _write(
    x: tl.tensor,  # (HEADS, DP)
    cache: tl.tensor,
    scales: tl.tensor,
    slots: tl.tensor,  # (HEADS,)
    dims: tl.tensor,
    is_head: tl.tensor,
    mask: tl.tensor,
    D: tl.constexpr,
    IS_INT8: tl.constexpr,
) -> None:
    places = cache + slots[:, None] * D + dims[None, :]
    if IS_INT8:
        x = x.to(tl.float32)
        scale = tl.max(tl.abs(x), 1) * INT8_STEP
        inverse = tl.where(scale > 0, tl.div_rn(1.0, tl.where(scale > 0, scale, 1.0)), 0.0)
        rounded = (x * inverse[:, None] + ROUNDS) - ROUNDS
        tl.store(places, rounded.to(tl.int8), mask=mask)
        tl.store(scales + slots, scale, mask=is_head)
    else:
        tl.store(places, x, mask=mask)


@kernel("positions_ptr", "slots_ptr", "num_heads")
def store_kernel(
    qkv_ptr: tl.tensor,  # (T, ...): q, k and v, (H, D) each, begin a row
    cos_ptr: tl.tensor,  # (positions, ROTARY / 2) fp32, like sin_ptr
    sin_ptr: tl.tensor,
    k_ptr: tl.tensor,  # (blocks, H, BLOCK_SIZE, D)
    v_ptr: tl.tensor,
    k_scales: tl.tensor,  # (blocks, H, BLOCK_SIZE) fp32, like v_scales; None unless IS_INT8
    v_scales: tl.tensor,
    positions_ptr: tl.tensor,  # (T,)
    slots_ptr: tl.tensor,  # (T,)
    qkv_stride: tl.tensor,
    num_heads: tl.tensor,
    HEADS: tl.constexpr,  # of a program
    D: tl.constexpr,
    DP: tl.constexpr,
    ROTARY: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    IS_INT8: tl.constexpr,
) -> None:
    row = tl.program_id(0)
    heads = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    dims, pairs = tl.arange(0, DP), tl.arange(0, DP // 2)
    is_head = heads < num_heads
    mask = is_head[:, None]
    if D != DP:
        mask = mask & (dims < D)[None, :]
    is_rotated = pairs < ROTARY // 2
    angle = tl.load(positions_ptr + row).to(tl.int64) * (ROTARY // 2) + pairs
    cos = tl.load(cos_ptr + angle, mask=is_rotated, other=1.0)[None, :]
    sin = tl.load(sin_ptr + angle, mask=is_rotated, other=0.0)[None, :]
    part = num_heads * D
    q_ptr = qkv_ptr + row.to(tl.int64) * qkv_stride + heads[:, None] * D + dims[None, :]
    q = tl.load(q_ptr, mask=mask, other=0.0)
    k = tl.load(q_ptr + part, mask=mask, other=0.0)
    v = tl.load(q_ptr + 2 * part, mask=mask, other=0.0)
    q = _rotated(q, cos, sin, is_rotated[None, :], HEADS, DP)
    k = _rotated(k, cos, sin, is_rotated[None, :], HEADS, DP)
    tl.store(q_ptr, q, mask=mask)
    slot = tl.load(slots_ptr + row)
    block = (slot // BLOCK_SIZE).to(tl.int64)
    slots = (block * num_heads + heads) * BLOCK_SIZE + slot % BLOCK_SIZE
    _write(k, k_ptr, k_scales, slots, dims, is_head, mask, D, IS_INT8)
    _write(v, v_ptr, v_scales, slots, dims, is_head, mask, D, IS_INT8)
