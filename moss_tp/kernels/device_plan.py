"""A step as a device reads it: an AttentionPlan in tensors of fixed addresses.

All int32. A replayed graph reads whatever the host has copied into them since. A row, a sequence
or a tile may be idle: an idle row's K and V go to a spare block that no sequence owns, an idle tile
has no rows.
"""

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

SHORT_ROWS = 16  # of a short tile at most: decodes, and drafted rows to verify
LONG_ROWS = 32  # of a long tile at most: a piece of a prompt


@dataclass(frozen=True)
class StepLimits:
    """The largest step. What a step needs grows with each, so this one's memory is enough."""

    max_rows: int  # T
    max_seqs: int  # S
    max_logit_rows: int  # R
    max_short_tiles: int
    max_context: int  # tokens of a sequence: block_tables' width times block_size


@dataclass(frozen=True, eq=False)
class DevicePlan:
    """S sequences with T rows in all, side by side and in order of position as in AttentionPlan.

    A tile is up to SHORT_ROWS or LONG_ROWS neighbouring rows of one sequence, which attend
    together: `(sequence, first row, end row)`, idle where the last two are equal. Each row that is
    not idle is in one tile. All rows of a sequence with at most SHORT_ROWS of them are one short
    tile.
    """

    positions: Tensor  # (T,): each row's position in its sequence
    slots: Tensor  # (T,): its K and V go to slot `block * block_size + offset`
    block_tables: Tensor  # (S, W): long enough for the context, then any valid block
    short_tiles: Tensor  # (N, 3)
    long_tiles: Tensor  # (M, 3)
    block_size: int

    @property
    def num_rows(self) -> int:
        return self.positions.shape[0]

    @property
    def max_context(self) -> int:
        """Tokens that a block table can hold."""
        return self.block_tables.shape[1] * self.block_size

    @cached_property
    def limits(self) -> StepLimits:
        """Those of which this step is the largest. It knows of no logits."""
        return StepLimits(
            max_rows=self.num_rows,
            max_seqs=len(self.block_tables),
            max_logit_rows=0,
            max_short_tiles=len(self.short_tiles),
            max_context=self.max_context,
        )
