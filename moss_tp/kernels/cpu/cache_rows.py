"""What a step adds to the KV cache: rotated keys and values; queries are rotated in place.

`qkv (T, 3, H, D)` in fp32, the caches `(num_blocks, H, block_size)` rows of any kind, see
`elements`. Queries are scaled here too, once. One task is one row.
"""

import numpy as np
from numba.np.numpy_support import carray
from torch import Tensor

from moss_tp.kernels.cpu.elements import kind_of, put, row_bytes
from moss_tp.kernels.cpu.team import Program
from moss_tp.kernels.plan import AttentionPlan
from moss_tp.kernels.rotary import Rotary
from moss_tp.native.compiled import inner, kernel
from moss_tp.native.simd import FP32_BYTES, INT_BYTES, floats_at, ints_at

NUM_PARAMS = 13


def add_store(
    program: Program,
    qkv: Tensor,
    rotary: Rotary,
    cache: tuple[Tensor, Tensor],
    plan: AttentionPlan,
    scale: float,
) -> None:
    k_cache, v_cache = cache
    _, heads, block_size, _ = k_cache.shape
    head_dim = qkv.shape[-1]
    scale_bits = int(np.float32(scale).view(np.uint32))
    params: list[int | Tensor] = [
        qkv, rotary.cos, rotary.sin, plan.positions, plan.slot_mapping, k_cache, v_cache, heads,
        head_dim, block_size, 2 * rotary.cos.shape[1], kind_of(k_cache),
        scale_bits,
    ]  # fmt: skip
    program.add(_store, len(qkv), params)


@inner
def _rotate(x: int, cos: int, sin: int, rotary_dim: int) -> None:
    """Turns the interleaved pairs of one head, in place."""
    values, cosines, sines = floats_at(x), floats_at(cos), floats_at(sin)
    for pair in range(rotary_dim // 2):
        even, odd = values[2 * pair], values[2 * pair + 1]
        values[2 * pair] = even * cosines[pair] - odd * sines[pair]
        values[2 * pair + 1] = odd * cosines[pair] + even * sines[pair]


@kernel
def _store(params: int, row: int) -> None:
    p = carray(ints_at(params), NUM_PARAMS)
    heads, head_dim, block_size, rotary_dim, kind = p[7], p[8], p[9], p[10], p[11]
    scale = floats_at(params + 12 * INT_BYTES)[0]
    position, slot = ints_at(p[3])[row], ints_at(p[4])[row]
    angles = position * (rotary_dim // 2) * FP32_BYTES
    part = heads * head_dim * FP32_BYTES
    first = p[0] + row * 3 * part
    for head in range(heads):
        q = first + head * head_dim * FP32_BYTES
        _rotate(q, p[1] + angles, p[2] + angles, rotary_dim)
        values = floats_at(q)
        for i in range(head_dim):
            values[i] *= scale
        _rotate(q + part, p[1] + angles, p[2] + angles, rotary_dim)
        own = (slot // block_size * heads + head) * block_size + slot % block_size
        own *= row_bytes(head_dim, kind)
        put(floats_at(q + part), p[5] + own, head_dim, kind)
        put(floats_at(q + 2 * part), p[6] + own, head_dim, kind)
