"""The neutral plan holds a step's arrays as they are and refuses what kernels cannot read."""

from typing import Any

import numpy as np
import pytest

from moss_tp.kernels.plan import AttentionPlan, Ints

LENS, TABLES = np.array([2, 1]), np.zeros((2, 4), np.int64)


def make(positions: Any, block_tables: Ints = TABLES) -> AttentionPlan:
    return AttentionPlan(positions, np.arange(3), LENS, LENS, block_tables, block_size=16)


def test_arrays_are_shared() -> None:
    positions = np.arange(3)
    plan = make(positions)
    assert plan.positions is positions
    assert plan.query_lens is plan.context_lens is LENS
    assert (plan.num_rows, plan.num_seqs) == (3, 2)


def test_arrays_of_another_form_are_refused() -> None:
    for positions in (np.arange(3, dtype=np.int32), np.arange(6)[::2]):
        with pytest.raises(ValueError, match="contiguous int64"):
            make(positions)
    with pytest.raises(ValueError, match="contiguous int64"):
        make(np.arange(3), np.zeros((4, 2), np.int64).T)
