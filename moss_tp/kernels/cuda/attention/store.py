"""Rotary embedding, and writing a step's K and V to the cache."""

from torch import Tensor

from moss_tp.kernels.cuda.attention import reference
from moss_tp.kernels.cuda.attention.cache import PagedCache
from moss_tp.kernels.cuda.attention.checks import (
    check_cache,
    check_plan,
    check_qkv,
    check_rotary,
)
from moss_tp.kernels.cuda.attention.store_kernel import store_kernel
from moss_tp.kernels.cuda.attention.variants import HEADS_A_PROGRAM, variant_of
from moss_tp.kernels.cuda.runtime.launches import count_launch
from moss_tp.kernels.cuda.runtime.switch import uses_triton
from moss_tp.kernels.device_plan import DevicePlan
from moss_tp.kernels.rotary import Rotary


def store_kv(qkv: Tensor, rotary: Rotary, cache: PagedCache, plan: DevicePlan) -> None:
    """Rotates q of `qkv (T, 3, H, D)` in place and k on its way, and writes k and v to the plan's
    slots of `cache`; k and v of qkv are left as they are.

    Raises ValueError where the arguments do not fit together.
    """
    check_qkv(qkv, plan)
    check_plan(plan)
    check_cache(qkv, cache, plan)
    check_rotary(qkv, rotary)
    count_launch("store_kv")
    if not uses_triton(qkv):
        reference.store_kv(qkv, rotary, cache, plan)
        return
    variant, num_heads = variant_of(qkv, cache.k), qkv.shape[2]
    store_kernel[(len(qkv), -(-num_heads // HEADS_A_PROGRAM))](
        qkv,
        rotary.cos,
        rotary.sin,
        *cache,
        plan.positions,
        plan.slots,
        qkv.stride(0),
        num_heads,
        **variant.store(rotary.dim),
        **variant.store_options(),
    )
