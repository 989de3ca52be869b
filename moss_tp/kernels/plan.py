"""What attention reads of a step, on any device: rows, slots and block tables.

Flat int64 arrays on the host, made once a step and used by every layer. A back end derives its
own plan from it (`cpu.attention.plan`, `reference.plan`) and copies to its device what it needs
there.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class AttentionPlan:
    """S sequences with T rows in all, at least one each; a sequence's rows lie side by side, in
    order of position.

    A row attends to the tokens of its sequence up to its own position.
    """

    positions: Ints  # (T,)
    slot_mapping: Ints  # (T,): each row's K and V go to slot `block * block_size + offset`
    query_lens: Ints  # (S,): rows of each sequence
    context_lens: Ints  # (S,): tokens of each sequence, including this step's
    block_tables: Ints  # (S, max_blocks): long enough for the context, then any valid block
    block_size: int

    def __post_init__(self) -> None:
        """Raises ValueError for arrays that kernels cannot read by address."""
        arrays = (self.positions, self.slot_mapping, self.query_lens, self.context_lens)
        for ints in (*arrays, self.block_tables):
            if ints.dtype != np.int64 or not ints.flags.c_contiguous:
                raise ValueError("a plan takes contiguous int64 arrays")

    @property
    def num_rows(self) -> int:
        return len(self.positions)

    @property
    def num_seqs(self) -> int:
        return len(self.query_lens)
