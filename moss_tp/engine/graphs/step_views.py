"""The step's block of ints as a device reads it: views for steps of one shape."""

from dataclasses import dataclass
from math import prod

from torch import Tensor

from moss_tp.engine.graphs.layout import Part, StepLayout
from moss_tp.kernels.device_plan import DevicePlan


@dataclass(frozen=True)
class StepShape:
    """T rows of S sequences, with tiles, R rows of logits: idle ones included."""

    rows: int
    seqs: int
    short_tiles: int
    long_tiles: int
    logit_rows: int


@dataclass(frozen=True, eq=False)
class StepViews:
    """`token_ids (T,)`, pending ids included, `logit_rows (R,)`, and the sampler's block."""

    token_ids: Tensor
    plan: DevicePlan
    logit_rows: Tensor
    sampling: Tensor


def step_views(block: Tensor, layout: StepLayout, shape: StepShape, block_size: int) -> StepViews:
    """Views of `block (layout.num_ints,)`, for a cache with blocks of `block_size`. They start
    where those of every other shape start."""

    def first(part: Part, *lengths: int) -> Tensor:
        return block[part.start : part.start + prod(lengths)].view(lengths)

    width = layout.block_tables.size // layout.max_seqs
    plan = DevicePlan(
        positions=first(layout.positions, shape.rows),
        slots=first(layout.slots, shape.rows),
        block_tables=first(layout.block_tables, shape.seqs, width),
        short_tiles=first(layout.short_tiles, shape.short_tiles, 3),
        long_tiles=first(layout.long_tiles, shape.long_tiles, 3),
        block_size=block_size,
    )
    return StepViews(
        token_ids=first(layout.token_ids, shape.rows),
        plan=plan,
        logit_rows=first(layout.logit_rows, shape.logit_rows),
        sampling=block[layout.sampling.span],
    )
