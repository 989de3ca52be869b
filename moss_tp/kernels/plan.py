"""What attention needs to know about a step, whatever the device: rows, slots and block tables.

Flat int64 arrays on the host, made once a step and used by every layer. A back end derives its
own plan from it (`cpu.attention.plan`, `reference.plan`) and copies to its device what it needs
there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from torch import Tensor

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

    @classmethod
    def make(
        cls,
        positions: Ints | Tensor,
        slot_mapping: Ints | Tensor,
        query_lens: Ints | Sequence[int],
        context_lens: Ints | Sequence[int],
        block_tables: Ints | Tensor,
        block_size: int,
    ) -> Self:
        """Shares memory with int64 arrays and CPU tensors; copies anything else."""
        return cls(
            _to_array(positions),
            _to_array(slot_mapping),
            _to_array(query_lens),
            _to_array(context_lens),
            _to_array(block_tables),
            block_size,
        )

    @property
    def num_rows(self) -> int:
        return len(self.positions)

    @property
    def num_seqs(self) -> int:
        return len(self.query_lens)


def _to_array(values: Ints | Tensor | Sequence[int]) -> Ints:
    host = values.cpu().numpy() if isinstance(values, Tensor) else values
    return np.ascontiguousarray(host, np.int64)
