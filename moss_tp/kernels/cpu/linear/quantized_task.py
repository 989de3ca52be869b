"""What the products with a quantized weight share: a span of a task, and blocks of its runs."""

from typing import NamedTuple

from moss_tp.kernels.cpu.linear.levels import UNIT
from moss_tp.kernels.cpu.linear.quantized_pack import MAX_RUN
from moss_tp.native.compiled import inner
from moss_tp.native.memory import int64_at

PREFETCH = 8192  # bytes of levels, ahead of what is read
BLOCK_UNITS = MAX_RUN // UNIT  # unpacked at a time: one run or several


class SpanTask(NamedTuple):
    """A span of a task: addresses, and strides in bytes."""

    x: int
    x_stride: int
    panels: int
    starts: int
    x_starts: int
    num_runs: int  # of all spans
    first: int  # run of the span,
    end: int  # and behind its last one
    scales: int
    scales_stride: int
    x_sums: int
    rows: int
    c: int


@inner
def block_end(starts: int, first: int, last_end: int) -> int:
    """The run behind those that are unpacked together with `first`."""
    end, units = first + 1, int64_at(starts)
    while end < last_end and units[end + 1] - units[first] <= BLOCK_UNITS:
        end += 1
    return end
