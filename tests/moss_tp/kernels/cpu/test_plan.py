"""The CPU's plan of a step: how sequences are cut into tiles."""

import numpy as np
import pytest

from moss_tp.kernels.cpu.attention.plan import (
    MAX_DECODE_QUERIES,
    MAX_TILE_QUERIES,
    SPLIT,
    CpuPlan,
    StepAddresses,
    Tile,
    cpu_plan,
)
from moss_tp.kernels.plan import AttentionPlan

BLOCK_SIZE = 16


def plan_of(lens: list[tuple[int, int]]) -> AttentionPlan:
    """Sequences of `(query_len, context_len)`."""
    positions = [p for query, context in lens for p in range(context - query, context)]
    width = max(-(-context // BLOCK_SIZE) for _, context in lens)
    return AttentionPlan(
        np.array(positions),
        np.arange(len(positions)),
        np.array([query for query, _ in lens]),
        np.array([context for _, context in lens]),
        np.zeros((len(lens), width), np.int64),
        BLOCK_SIZE,
    )


def tiles(plan: CpuPlan) -> list[Tile]:
    return [Tile(*tile) for tile in plan.arrays[2].tolist()]


def test_decodes_only() -> None:
    plan = CpuPlan.make(plan_of([(1, 7), (1, 30), (1, 1)]))
    assert tiles(plan) == [Tile(0, 1, 7, 0, 0), Tile(1, 1, 30, 1, 1), Tile(2, 1, 1, 2, 2)]
    assert plan.layout == (3, 3, 1, 3, 0)


def test_drafted_rows_decode_up_to_the_limit() -> None:
    most = MAX_DECODE_QUERIES
    plan = CpuPlan.make(plan_of([(most + 1, 50), (most, 50), (2, 9)]))
    assert tiles(plan) == [
        Tile(most + 1, most, 51 - most, seq=1, before=0),
        Tile(2 * most + 1, 2, 8, seq=2, before=most),
        Tile(0, most + 1, 50 - most, seq=0, before=0),
    ]
    assert (plan.num_decode_rows, plan.num_decode_tiles, plan.num_prefill_tiles) == (most + 2, 2, 1)


def test_long_sequences_are_cut_into_tiles_of_longest_context_first() -> None:
    rows = 2 * MAX_TILE_QUERIES + 5
    plan = CpuPlan.make(plan_of([(1, 4), (rows, rows + 70), (10, 10)]))
    assert tiles(plan) == [
        Tile(0, 1, 4, seq=0, before=0),
        Tile(1 + 2 * MAX_TILE_QUERIES, 5, 2 * MAX_TILE_QUERIES + 71, seq=1, before=0),
        Tile(1 + MAX_TILE_QUERIES, MAX_TILE_QUERIES, MAX_TILE_QUERIES + 71, seq=1, before=0),
        Tile(1, MAX_TILE_QUERIES, 71, seq=1, before=0),
        Tile(1 + rows, 10, 1, seq=2, before=0),
    ]


@pytest.mark.parametrize(("context", "splits"), [(SPLIT, 1), (SPLIT + 1, 2)])
def test_splits_follow_the_longest_context_of_decode_rows(context: int, splits: int) -> None:
    lens = [(1, 3), (2, context)]
    assert CpuPlan.make(plan_of(lens)).num_splits == splits
    assert CpuPlan.make(plan_of([*lens, (9, 9000)])).num_splits == splits


def test_the_step_points_into_the_arrays() -> None:
    source = plan_of([(1, 40), (12, 20)])
    plan = CpuPlan.make(source)
    step = StepAddresses(*plan.step.tolist())
    assert step.positions == source.positions.ctypes.data
    assert step.block_tables == source.block_tables.ctypes.data
    assert step.table_stride == 3


def test_layers_of_a_step_share_a_plan() -> None:
    source, other = plan_of([(1, 40)]), plan_of([(1, 40)])
    assert cpu_plan(source) is cpu_plan(source)
    assert cpu_plan(source) is not cpu_plan(other)
