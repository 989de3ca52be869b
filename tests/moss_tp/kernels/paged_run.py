"""Sequences of random rows, attended step by step on a cache that is full of stale numbers."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from moss_tp.kernels.kv_cache import SCALE_BYTES, row_width
from moss_tp.kernels.plan import AttentionPlan
from moss_tp.kernels.rotary import Rotary
from tests.moss_tp.kernels.paged_case import AttentionShape
from tests.support.paged_sequences import padded

AttendStep = Callable[[Tensor, Rotary, tuple[Tensor, Tensor], AttentionPlan, float], Tensor]


class PagedRun:
    """In every run of one shape and length, sequence 0 has the same rows; stale numbers and the
    other sequences depend on `seed`."""

    def __init__(
        self,
        shape: AttentionShape,
        dtype: torch.dtype,
        cache_dtype: torch.dtype,
        lens: Sequence[int],
        seed: int,
    ) -> None:
        self._shape, self._done = shape, [0] * len(lens)
        self._rotary = Rotary.make(shape.rotary_dim, max(lens), torch.device("cpu"))
        seeds = [0, *range(seed, seed + len(lens) - 1)]
        self._rows = [_rows(shape, n, dtype, own) for n, own in zip(lens, seeds, strict=True)]
        counts = [-(-length // shape.block_size) for length in lens]
        order = torch.randperm(sum(counts), generator=torch.Generator().manual_seed(seed))
        self._tables = [part.tolist() for part in order.split(counts)]
        size = (sum(counts), shape.heads, shape.block_size, row_width(shape.head_dim, cache_dtype))
        self._cache = (_stale(size, cache_dtype, seed), _stale(size, cache_dtype, seed + 1))

    def step(self, attend: AttendStep, counts: Mapping[int, int], num_wrong: int = 0) -> Tensor:
        """The next rows of sequences, `counts` of each; returns those of sequence 0, `(rows, H *
        D)`. Its last `num_wrong` are not its own, like drafts, and are to be computed again."""
        plan, qkv = self._plan(counts), []
        for seq, count in counts.items():
            rows = self._rows[seq][self._done[seq] : self._done[seq] + count].clone()
            if seq == 0 and num_wrong:
                rows[-num_wrong:] += 1
            qkv.append(rows)
            self._done[seq] += count
        self._done[0] -= num_wrong
        out = attend(torch.cat(qkv), self._rotary, self._cache, plan, self._shape.scale)
        first = sum(count for _, count in list(counts.items())[: list(counts).index(0)])
        return out[first : first + counts[0] - num_wrong]

    def stored(self) -> Tensor:
        """The bytes of sequence 0's whole blocks: `(2, blocks, …)`."""
        whole = self._tables[0][: self._done[0] // self._shape.block_size]
        return torch.stack([part[whole].view(torch.uint8) for part in self._cache])

    def _plan(self, counts: Mapping[int, int]) -> AttentionPlan:
        size = self._shape.block_size
        spans = [np.arange(self._done[seq], self._done[seq] + n) for seq, n in counts.items()]
        tables = [np.array(self._tables[seq]) for seq in counts]
        slots = [t[s // size] * size + s % size for t, s in zip(tables, spans, strict=True)]
        return AttentionPlan(
            np.concatenate(spans),
            np.concatenate(slots),
            np.array(list(counts.values())),
            np.array([span[-1] + 1 for span in spans]),
            padded([self._tables[seq] for seq in counts]),
            size,
        )


def _rows(shape: AttentionShape, length: int, dtype: torch.dtype, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    size = (length, 3, shape.heads, shape.head_dim)
    # Scores of many sizes, so that maxima rise late and sums are rescaled.
    return (torch.randn(size, generator=random) * 2).to(dtype)


def _stale(size: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    """NaN, and anything in int8: what another sequence has left must not be seen."""
    if dtype != torch.int8:
        return torch.full(size, torch.nan, dtype=dtype)
    random = torch.Generator().manual_seed(seed)
    stale = torch.randint(-128, 128, size, generator=random).to(torch.int8)
    stale.flatten(2)[..., -SCALE_BYTES * size[2] :] = -1  # the bytes of NaN
    return stale
