"""Attention of a step's rows over their sequences' cached K and V."""

import torch
from torch import Tensor

from moss_tp.kernels.cuda.attention import reference
from moss_tp.kernels.cuda.attention.cache import PagedCache
from moss_tp.kernels.cuda.attention.checks import check_cache, check_out, check_plan, check_qkv
from moss_tp.kernels.cuda.attention.partials import is_split, num_pieces, row_bytes
from moss_tp.kernels.device_plan import DevicePlan


def attend(
    qkv: Tensor,
    cache: PagedCache,
    plan: DevicePlan,
    scale: float,
    out: Tensor,
    partials: Tensor,
) -> None:
    """Each row of `qkv (T, 3, H, D)`, rotated by `store_kv`, attends to its sequence up to its own
    position: `out (T, H * D)`, whose rows may be apart; rows of no tile are left as they are.

    `partials` is contiguous fp32 memory of any shape, see `partials_bytes`. Raises ValueError where
    the arguments do not fit together.
    """
    check_qkv(qkv, plan)
    check_plan(plan)
    check_cache(qkv, cache, plan)
    check_out(qkv, out)
    _check_partials(qkv, plan, partials)
    reference.attend(qkv, cache, plan, scale, out)


def _check_partials(qkv: Tensor, plan: DevicePlan, partials: Tensor) -> None:
    rows, _, num_heads, head_dim = qkv.shape
    if not len(plan.short_tiles) or not is_split(rows, plan.max_context, num_heads, head_dim):
        return
    needed = rows * row_bytes(num_pieces(plan.max_context), num_heads, head_dim)
    if partials.dtype != torch.float32 or not partials.is_contiguous():
        raise ValueError(f"partials are not contiguous fp32 but {partials.dtype}")
    if partials.nbytes < needed:
        raise ValueError(f"{partials.nbytes} bytes of partials for a step that needs {needed}")
