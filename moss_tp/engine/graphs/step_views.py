"""The step's block of ints as a device reads it: views for steps of one size."""

from dataclasses import dataclass

from torch import Tensor

from moss_tp.engine.graphs.layout import Part, StepLayout
from moss_tp.kernels.device_plan import DevicePlan


@dataclass(frozen=True)
class StepSize:
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


def step_views(block: Tensor, layout: StepLayout, size: StepSize, plan_block: int) -> StepViews:
    """Views of `block (layout.num_ints,)`. They start where those of every other size start."""

    def first(part: Part, *shape: int) -> Tensor:
        count = 1
        for length in shape:
            count *= length
        return block[part.start : part.start + count].view(shape)

    max_seqs = layout.context_lens.size
    width = layout.block_tables.size // max_seqs
    plan = DevicePlan(
        positions=first(layout.positions, size.rows),
        slots=first(layout.slots, size.rows),
        context_lens=first(layout.context_lens, size.seqs),
        block_tables=first(layout.block_tables, size.seqs, width),
        short_tiles=first(layout.short_tiles, size.short_tiles, 3),
        long_tiles=first(layout.long_tiles, size.long_tiles, 3),
        block_size=plan_block,
    )
    return StepViews(
        token_ids=first(layout.token_ids, size.rows),
        plan=plan,
        logit_rows=first(layout.logit_rows, size.logit_rows),
        sampling=block[layout.sampling.span],
    )
