"""Attention kernels by device. This is the one checked place through which layers reach them.

Every kernel has the signature of `reference`, which is its oracle in tests.
"""

from types import ModuleType

from torch import Tensor

from moss_tp.errors import ConfigError
from moss_tp.kernels import reference
from moss_tp.kernels.plan import AttentionPlan

_BY_DEVICE: dict[str, ModuleType] = {"cpu": reference, "cuda": reference}


def attend_paged(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cache: tuple[Tensor, Tensor],
    plan: AttentionPlan,
    scale: float,
) -> Tensor:
    """Stores a step's `k`, `v` and attends with `q`, all `(T, H, D)`; returns `(T, H, D)`.

    `cache` holds K and V, each `(num_blocks, block_size, H, D)`. Raises ValueError for shapes or
    dtypes that do not fit together, ConfigError for a device without kernels.
    """
    k_cache, v_cache = cache
    if not q.shape == k.shape == v.shape or q.shape[:1] != plan.slot_mapping.shape:
        raise ValueError(
            f"q {q.shape}, k {k.shape}, v {v.shape} for slots {plan.slot_mapping.shape}"
        )
    if k_cache.shape != v_cache.shape or k_cache.shape[2:] != q.shape[1:]:
        raise ValueError(f"q {q.shape} for caches {k_cache.shape}, {v_cache.shape}")
    if not q.dtype == k_cache.dtype == v_cache.dtype:
        raise ValueError(f"q is {q.dtype}, the cache {k_cache.dtype}")
    if q.device.type not in _BY_DEVICE:
        raise ConfigError(f"there are no attention kernels for {q.device}")
    kernels = _BY_DEVICE[q.device.type]
    kernels.write_kv(k, v, k_cache, v_cache, plan.slot_mapping)
    out: Tensor = kernels.paged_attention(q, k_cache, v_cache, plan, scale)
    return out
