"""A step's sampling settings, packed into one block of int32 that goes to the device in one copy.

    | header | a record a row | entries | appends |

`entries` are what is added to single logits: biases, and -inf for blocked ids. `appends` are ids
that penalties count from now on, in the slot of their sequence.
"""

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

ALIGNMENT = 32  # ints: each part starts at a multiple of 128 bytes
NUM_APPENDS, HAS_MORE_ENTRIES = 0, 1  # in the header

# A record's fields, by their place in it as an array of their type.
SEED, POSITION = 0, 1  # int64
EOS_BONUS, TEMPERATURE, TOP_P, MIN_LOG_WEIGHT = 2, 3, 4, 5  # float64
REPETITION, PRESENCE, FREQUENCY = 12, 13, 14  # float32
KIND, TOP_K, NUM_LOGPROBS = 15, 16, 17  # int32; -1 logprobs: not even the sampled id's
EOS_ID, SLOT, NUM_DRAFTED, DRAFT_ID, FIRST_ENTRY, END_ENTRY = 18, 19, 20, 21, 22, 23  # int32
RECORD = 24  # int32


class Kind(IntEnum):
    """How a row is sampled, as `moss_tp.sampling.draw` decides it. TOP_P may find that it keeps
    more than 256 ids, and is drawn like VOCAB_CUT then."""

    IDLE = 0
    GREEDY = 1
    BEST_64 = 2
    BEST_256 = 3
    TOP_P = 4
    VOCAB = 5  # neither top-k nor top-p
    VOCAB_CUT = 6  # top-k above 256


@dataclass(frozen=True)
class BlockLayout:
    """For up to `max_rows` rows. Further entries than `max_entries` need a copy of their own."""

    max_rows: int
    max_entries: int

    @classmethod
    def of(cls, max_rows: int) -> "BlockLayout":
        return cls(max_rows, 64 * max_rows)

    @property
    def max_appends(self) -> int:
        """What the step before has sampled, and one pending id for each sequence."""
        return 2 * self.max_rows

    @property
    def records(self) -> slice:
        """`(max_rows, RECORD)`."""
        return _after(ALIGNMENT, RECORD * self.max_rows)

    @property
    def entries(self) -> slice:
        """`(2, max_entries)`: ids, then fp32 values."""
        return _after(self.records.stop, 2 * self.max_entries)

    @property
    def appends(self) -> slice:
        """`(2, max_appends)`: slots, then ids."""
        return _after(self.entries.stop, 2 * self.max_appends)

    @property
    def num_ints(self) -> int:
        return int(self.appends.stop)


def _after(start: int, size: int) -> slice:
    start = -(-start // ALIGNMENT) * ALIGNMENT
    return slice(start, start + size)


@dataclass(frozen=True, eq=False)
class SamplingInputs:
    """Views of a block on the device, and `more_entries (2, N)`, which hold all entries where the
    block has too few places.

    A record's `DRAFT_ID` is the last drafted id before its row, and the rows of a drafted sequence
    lie side by side: so the `NUM_DRAFTED` ids before row r are the `DRAFT_ID` of that many rows up
    to r. An append `-(1 + r)` is the id sampled for row r of the step before.
    """

    header: Tensor  # int32
    ints: Tensor  # (max_rows, RECORD) int32
    entries: Tensor  # (2, max_entries) int32
    more_entries: Tensor
    appends: Tensor  # (2, max_appends) int32

    @classmethod
    def of(cls, block: Tensor, layout: BlockLayout, more_entries: Tensor) -> "SamplingInputs":
        return cls(
            header=block[:ALIGNMENT],
            ints=block[layout.records].view(-1, RECORD),
            entries=block[layout.entries].view(2, -1),
            more_entries=more_entries,
            appends=block[layout.appends].view(2, -1),
        )

    @property
    def longs(self) -> Tensor:
        return self.ints.view(torch.int64)

    @property
    def doubles(self) -> Tensor:
        return self.ints.view(torch.float64)

    @property
    def floats(self) -> Tensor:
        return self.ints.view(torch.float32)
