"""The sampler's memory on the device: what it keeps from step to step, and intermediate results."""

from dataclasses import dataclass

import torch
from torch import Tensor

GROUP = 16  # neighbouring ids at least, of which only the best is looked at first
MAX_GROUPS = 8192
CHUNK = 4096  # ids of one program
PART = 1024  # ids at a time, in a search by digits
MAX_VOCAB = 2**20
MAX_BEST = 256
SEEN, ONE_OUTPUT = 1, 2  # in a count: whether the id is in prompt or output, times in the output


def group_size(vocab_size: int) -> int:
    size = GROUP
    while vocab_size > size * MAX_GROUPS:
        size *= 2
    return size


def weight_scale(vocab_size: int) -> float:
    """The weight of the best id. The sum of all weights is below 2^62."""
    return 2.0 ** (62 - (vocab_size - 1).bit_length())


@dataclass(frozen=True, eq=False)
class SamplerState:
    """`counts[slot, id]` is SEEN + ONE_OUTPUT times the occurrences in the output, 0 if unseen."""

    counts: Tensor  # (slots, vocab_size) int32
    sampled: Tensor  # (max_rows,) int32: the ids of the last step

    @classmethod
    def allocate(
        cls, num_slots: int, vocab_size: int, max_rows: int, device: torch.device
    ) -> "SamplerState":
        counts = torch.zeros(num_slots, vocab_size, dtype=torch.int32, device=device)
        return cls(counts, torch.zeros(max_rows, dtype=torch.int32, device=device))


@dataclass(frozen=True, eq=False)
class SamplerScratch:
    """Of up to R rows. Where there are two planes, the second is of the raw logits, for rows that
    want logprobs."""

    scores: Tensor  # (R, vocab_size) fp32: logits after penalties and entries
    group_best: Tensor  # (2, R, groups) fp32
    groups: Tensor  # (2, R, MAX_BEST) int32: those that hold the best ids, in order
    best: Tensor  # (2, R, MAX_BEST) int64: the best ids as sort keys, in no order
    chunk_masses: Tensor  # (R, chunks) int64
    chunk_log_sums: Tensor  # (R, chunks) fp64: of the raw logits
    extremes: Tensor  # (R, 2) fp32: the best score, and the best of ids other than eos
    log_sums: Tensor  # (R,) fp64: log of the sum of exp(raw logit)
    keeps_more: Tensor  # (R,) int32: whether a TOP_P row keeps more than MAX_BEST ids

    @property
    def max_rows(self) -> int:
        return self.scores.shape[0]

    @property
    def num_groups(self) -> int:
        return self.group_best.shape[2]

    @property
    def num_chunks(self) -> int:
        return self.chunk_masses.shape[1]

    @classmethod
    def allocate(cls, max_rows: int, vocab_size: int, device: torch.device) -> "SamplerScratch":
        groups = -(-vocab_size // group_size(vocab_size))
        chunks = -(-vocab_size // CHUNK)

        def empty(*shape: int, dtype: torch.dtype) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=device)

        rows = max_rows
        return cls(
            scores=empty(rows, vocab_size, dtype=torch.float32),
            group_best=empty(2, rows, groups, dtype=torch.float32),
            groups=empty(2, rows, MAX_BEST, dtype=torch.int32),
            best=empty(2, rows, MAX_BEST, dtype=torch.int64),
            chunk_masses=empty(rows, chunks, dtype=torch.int64),
            chunk_log_sums=empty(rows, chunks, dtype=torch.float64),
            extremes=empty(rows, 2, dtype=torch.float32),
            log_sums=empty(rows, dtype=torch.float64),
            keeps_more=empty(rows, dtype=torch.int32),
        )
