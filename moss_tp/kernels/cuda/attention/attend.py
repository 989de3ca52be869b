"""Attention of a step's rows over their sequences' cached K and V."""

import math
from typing import Any

import torch
from torch import Tensor

from moss_tp.kernels.cuda.attention import reference
from moss_tp.kernels.cuda.attention.cache import PagedCache
from moss_tp.kernels.cuda.attention.checks import check_cache, check_out, check_plan, check_qkv
from moss_tp.kernels.cuda.attention.kernels import attend_kernel, merge_kernel
from moss_tp.kernels.cuda.attention.partials import (
    are_few,
    has_partials,
    num_pieces,
    num_places,
    places_apart,
    row_bytes,
)
from moss_tp.kernels.cuda.attention.variants import MERGES, Variant, variant_of
from moss_tp.kernels.cuda.runtime.device import multiprocessors
from moss_tp.kernels.cuda.runtime.launches import count_launch
from moss_tp.kernels.cuda.runtime.switch import uses_triton
from moss_tp.kernels.device_plan import LONG_ROWS, SHORT_ROWS, DevicePlan


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
    rows, _, num_heads, head_dim = qkv.shape
    places = num_places(rows, len(plan.short_tiles))
    has_pieces = are_few(len(plan.short_tiles), num_heads, multiprocessors(qkv)) and has_partials(
        places, plan.max_context, num_heads, head_dim
    )
    stats = None
    if has_pieces:
        partials, stats = _partials(qkv, plan, partials)
    _count(plan, has_pieces)
    if not uses_triton(qkv):
        reference.attend(qkv, cache, plan, scale, out)
        return
    step = _Step(qkv, cache, plan, scale * math.log2(math.e), out)
    if stats is not None:
        step.split(partials, stats)
    else:
        step.loop(plan.short_tiles, SHORT_ROWS)
    step.loop(plan.long_tiles, LONG_ROWS)


class _Step:
    """The launches of a step."""

    def __init__(
        self, qkv: Tensor, cache: PagedCache, plan: DevicePlan, scale: float, out: Tensor
    ) -> None:
        self._qkv, self._cache, self._plan, self._scale, self._out = qkv, cache, plan, scale, out
        self._variant: Variant = variant_of(qkv, cache.k)
        self._num_heads = qkv.shape[2]

    def split(self, partials: Tensor, stats: Tensor) -> None:
        plan, tiles = self._plan, self._plan.short_tiles
        pieces, apart = num_pieces(plan.max_context), places_apart(plan.num_rows, len(tiles))
        self._launch(tiles, SHORT_ROWS, None, partials, stats)
        merge_kernel[(len(tiles), self._num_heads, MERGES)](
            plan.positions,
            tiles,
            self._out,
            partials,
            stats,
            self._out.stride(0),
            self._num_heads,
            pieces,
            apart,
            **self._variant.merge(),
            **self._variant.merge_options(),
        )

    def loop(self, tiles: Tensor, rows: int) -> None:
        if len(tiles):
            self._launch(tiles, rows, self._out, None, None)

    def _launch(
        self,
        tiles: Tensor,
        rows: int,
        out: Tensor | None,
        partials: Tensor | None,
        stats: Tensor | None,
    ) -> None:
        plan, is_split = self._plan, partials is not None
        pieces = num_pieces(plan.max_context)
        tensors: tuple[Any, ...] = (plan.positions, plan.block_tables, tiles, out, partials, stats)
        attend_kernel[(len(tiles), self._num_heads, pieces if is_split else 1)](
            self._qkv,
            *self._cache,
            *tensors,
            self._qkv.stride(0),
            self._out.stride(0),
            plan.block_tables.shape[1],
            self._num_heads,
            pieces,
            places_apart(plan.num_rows, len(tiles)),
            self._scale,
            **self._variant.attend(rows, is_split),
            **self._variant.attend_options(rows, is_split),
        )


def _partials(qkv: Tensor, plan: DevicePlan, memory: Tensor) -> tuple[Tensor, Tensor]:
    """Values and statistics of all places, heads and pieces, one behind the other in `memory`."""
    rows, _, num_heads, head_dim = qkv.shape
    pieces, places = num_pieces(plan.max_context), num_places(rows, len(plan.short_tiles))
    needed = places * row_bytes(pieces, num_heads, head_dim)
    if memory.dtype != torch.float32 or not memory.is_contiguous():
        raise ValueError(f"partials are not contiguous fp32 but {memory.dtype}")
    if memory.nbytes < needed:
        raise ValueError(f"{memory.nbytes} bytes of partials for a step that needs {needed}")
    count = places * num_heads * pieces
    used = memory.view(-1)[: needed // 4]
    return used[: count * head_dim], used[count * head_dim :]


def _count(plan: DevicePlan, has_pieces: bool) -> None:
    if len(plan.short_tiles):
        count_launch("attend")
        if has_pieces:
            count_launch("merge_pieces")
    if len(plan.long_tiles):
        count_launch("attend")
