"""What a query has summed over SPLIT tokens of its context, and how such partials are merged.

    record    sums (D,), the scores' maximum, the sum of weights        fp32

Splits begin at fixed places and are merged in order, whether they are summed one after the other or
at the same time. So a query's result depends on neither.
"""

import numpy as np

from moss_tp.kernels.cpu.attention.cache_rows import store_row
from moss_tp.kernels.cpu.attention.scratch import Scratch, width_of
from moss_tp.kernels.cpu.attention.softmax import sum_of_lanes
from moss_tp.native.compiled import exact_inlined
from moss_tp.native.exp import exp
from moss_tp.native.llvm import FP32_BYTES
from moss_tp.native.memory import fp32_at
from moss_tp.native.vectors import LANES


@exact_inlined
def write_record(scratch: Scratch, query: int, head_dim: int, record: int) -> None:
    out, sums = fp32_at(record), fp32_at(scratch.sums + query * width_of(head_dim) * FP32_BYTES)
    for d in range(head_dim):
        out[d] = sums[d]
    out[head_dim] = fp32_at(scratch.maxima)[query]
    out[head_dim + 1] = sum_of_lanes(scratch.totals + query * LANES * FP32_BYTES)


@exact_inlined
def merge_record(into: int, record: int, head_dim: int) -> None:
    """Rescales both to the greater of their maxima and adds them. A query that sees nothing of a
    split has sums of 0, which change nothing."""
    total, added = fp32_at(into), fp32_at(record)
    greatest = max(total[head_dim], added[head_dim])
    own, other = exp(total[head_dim] - greatest), exp(added[head_dim] - greatest)
    for d in range(head_dim):
        total[d] = total[d] * own + added[d] * other
    total[head_dim] = greatest
    total[head_dim + 1] = total[head_dim + 1] * own + added[head_dim + 1] * other


@exact_inlined
def store_record(record: int, head_dim: int, out: int, dtype: int) -> None:
    """The sums, divided by the sum of weights, as a row. Leaves them in the record."""
    sums = fp32_at(record)
    inverse = np.float32(1) / sums[head_dim + 1]
    for d in range(head_dim):
        # No zero is negative: whether one was depends on how many masked tokens were added.
        sums[d] = sums[d] * inverse + np.float32(0)
    store_row(sums, out, head_dim, dtype)
