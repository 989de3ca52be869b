"""A DevicePlan with a step's tiles, made from an AttentionPlan."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from moss_tp.kernels.device_plan import LONG_ROWS, SHORT_ROWS, DevicePlan
from moss_tp.kernels.plan import AttentionPlan

Tile = tuple[int, int, int]


def device_plan(
    plan: AttentionPlan, idle_short: int = 0, idle_long: int = 0, spare_rows: int = 0
) -> DevicePlan:
    """With idle tiles behind the busy ones, and `spare_rows` idle rows behind the plan's, which
    write to the block after the plan's largest."""
    tiles = list(_tiles(plan))
    is_short = np.array(plan.query_lens)[[seq for seq, _, _ in tiles]] <= SHORT_ROWS
    short = [tile for tile, mark in zip(tiles, is_short, strict=True) if mark]
    long = [tile for tile, mark in zip(tiles, is_short, strict=True) if not mark]
    spare = (int(plan.block_tables.max()) + 1) * plan.block_size
    return DevicePlan(
        positions=_ints([*plan.positions, *[0] * spare_rows]),
        slots=_ints([*plan.slot_mapping, *[spare] * spare_rows]),
        block_tables=_ints(plan.block_tables),
        short_tiles=_ints(short + [(0, 0, 0)] * idle_short).reshape(-1, 3),
        long_tiles=_ints(long + [(0, 0, 0)] * idle_long).reshape(-1, 3),
        block_size=plan.block_size,
    )


def _tiles(plan: AttentionPlan) -> Iterator[Tile]:
    start = 0
    for seq, count in enumerate(plan.query_lens.tolist()):
        size = SHORT_ROWS if count <= SHORT_ROWS else LONG_ROWS
        for first in range(start, start + count, size):
            yield seq, first, min(first + size, start + count)
        start += count


def _ints(values: object) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=np.int32))
