"""The activations of many sequences between two blocks, in a file: memory holds one sequence.

A file is the rows of all sequences, one after the other, and nothing else.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from moss_tp.errors import CheckpointError


@dataclass(frozen=True)
class Rows:
    """What all files of one set of sequences have in common."""

    lengths: tuple[int, ...]  # of the sequences, in tokens
    width: int
    dtype: torch.dtype

    @property
    def num_bytes(self) -> int:
        """Of a file."""
        return sum(self.lengths) * self.width * self.dtype.itemsize

    def write(self, file: Path, sequences: Iterable[Tensor]) -> None:
        """`sequences` are `(T, width)` each, on any device. The file is flushed to disk."""
        with file.open("wb") as opened:
            for sequence in sequences:
                opened.write(sequence.cpu().contiguous().view(torch.uint8).numpy().data)
            opened.flush()
            os.fsync(opened.fileno())

    def read(self, file: Path, device: torch.device) -> Iterator[Tensor]:
        """The sequences, `(T, width)` each. Raises CheckpointError for a file of another size."""
        if file.stat().st_size != self.num_bytes:
            raise CheckpointError(f"{file} is not the file that was written")
        with file.open("rb") as opened:
            for length in self.lengths:
                size = length * self.width * self.dtype.itemsize
                raw = torch.from_numpy(np.fromfile(opened, np.uint8, size))
                yield raw.view(self.dtype).view(length, self.width).to(device)
