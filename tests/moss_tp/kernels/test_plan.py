"""The neutral plan takes a step's ints as they are, in whatever form they come."""

import numpy as np
import torch

from moss_tp.kernels.plan import AttentionPlan


def test_arrays_and_cpu_tensors_are_not_copied() -> None:
    positions, tables = np.arange(3), torch.zeros(3, 4, dtype=torch.int64)
    slots, lens = torch.arange(3), np.ones(3, np.int64)
    plan = AttentionPlan.make(positions, slots, lens, lens, tables, 16)
    assert plan.positions is positions
    assert plan.query_lens is plan.context_lens is lens
    assert plan.slot_mapping.ctypes.data == slots.data_ptr()
    assert plan.block_tables.ctypes.data == tables.data_ptr()
    assert (plan.num_rows, plan.num_seqs) == (3, 3)


def test_lists_and_slices_become_contiguous_arrays() -> None:
    tables = torch.arange(12).view(2, 6)[:, 1:4]
    plan = AttentionPlan.make(np.arange(2), np.arange(2), [1, 1], (5, 9), tables, 4)
    assert plan.context_lens.tolist() == [5, 9]
    assert plan.block_tables.flags.c_contiguous
    assert plan.block_tables.tolist() == [[1, 2, 3], [7, 8, 9]]
