"""What the wrappers refuse: kernels read by address and check nothing. Shapes and strides only;
no value of a plan is read, since it lies on the device."""

import torch
from torch import Tensor

from moss_tp.kernels.cuda.attention.cache import PagedCache
from moss_tp.kernels.device_plan import DevicePlan
from moss_tp.kernels.rotary import Rotary

MODEL_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def check_qkv(qkv: Tensor, plan: DevicePlan) -> None:
    """`qkv (T, 3, H, D)`, whose rows may be apart. Raises ValueError."""
    if qkv.dim() != 4 or qkv.shape[1] != 3 or len(qkv) != plan.num_rows:
        raise ValueError(f"qkv {tuple(qkv.shape)} for {plan.num_rows} rows")
    _, _, num_heads, head_dim = qkv.shape
    if head_dim % 16 or not 16 <= head_dim <= 256:
        raise ValueError(f"head size {head_dim} is not a multiple of 16 up to 256")
    if qkv.dtype not in MODEL_DTYPES:
        raise ValueError(f"qkv is {qkv.dtype}")
    if qkv.stride()[1:] != (num_heads * head_dim, head_dim, 1) or not _is_aligned(qkv):
        raise ValueError(f"qkv with strides {qkv.stride()}")


def check_cache(qkv: Tensor, cache: PagedCache, plan: DevicePlan) -> None:
    """Raises ValueError where the cache does not fit qkv and plan."""
    _, _, num_heads, head_dim = qkv.shape
    size = (cache.k.shape[0], num_heads, plan.block_size, head_dim)
    is_int8 = cache.k.dtype == torch.int8
    for part, scales in ((cache.k, cache.k_scales), (cache.v, cache.v_scales)):
        if part.shape != size or not part.is_contiguous() or part.dtype != cache.k.dtype:
            raise ValueError(f"qkv {tuple(qkv.shape)} for a cache {tuple(part.shape)}")
        if part.dtype not in (qkv.dtype, torch.int8) or (scales is not None) != is_int8:
            raise ValueError(f"the cache is {part.dtype}, qkv {qkv.dtype}")
        if scales is not None and (scales.shape != size[:3] or not scales.is_contiguous()):
            raise ValueError(f"scales {tuple(scales.shape)} for a cache {tuple(part.shape)}")


def check_plan(plan: DevicePlan) -> None:
    """Raises ValueError where the plan's shapes do not fit together."""
    num_seqs, width = plan.block_tables.shape
    shapes = {
        "slots": (plan.slots, (plan.num_rows,)),
        "block_tables": (plan.block_tables, (num_seqs, width)),
        "short_tiles": (plan.short_tiles, (len(plan.short_tiles), 3)),
        "long_tiles": (plan.long_tiles, (len(plan.long_tiles), 3)),
        "positions": (plan.positions, (plan.num_rows,)),
    }
    for name, (part, shape) in shapes.items():
        if part.shape != shape or part.dtype != torch.int32 or not part.is_contiguous():
            raise ValueError(f"{name} {part.dtype} {tuple(part.shape)} instead of int32 {shape}")


def check_out(qkv: Tensor, out: Tensor) -> None:
    """`out (T, H * D)`, whose rows may be apart. Raises ValueError."""
    rows, _, num_heads, head_dim = qkv.shape
    if out.shape != (rows, num_heads * head_dim) or out.dtype != qkv.dtype:
        raise ValueError(f"out {out.dtype} {tuple(out.shape)} for qkv {tuple(qkv.shape)}")
    if out.stride(1) != 1 or not _is_aligned(out):
        raise ValueError(f"out with strides {out.stride()}")


def _is_aligned(rows: Tensor) -> bool:
    """Whether each row starts at a multiple of 16 bytes."""
    return rows.stride(0) * rows.element_size() % 16 == 0 and rows.data_ptr() % 16 == 0


def check_rotary(qkv: Tensor, rotary: Rotary) -> None:
    """Raises ValueError for angles that do not fit to the heads."""
    if rotary.dim > qkv.shape[-1]:
        raise ValueError(f"{rotary.dim} rotated dimensions of {qkv.shape[-1]}")
    for part in (rotary.cos, rotary.sin):
        if part.dtype != torch.float32 or not part.is_contiguous():
            raise ValueError(f"angles are not contiguous fp32 but {part.dtype}")
