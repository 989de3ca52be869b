"""Which part of a stored tensor one rank holds.

A layer describes its parameters by `Shard`s and the loader reads them, so layers do not depend on
files and the loader does not depend on layers. A weight that is stored as several tensors (GPTQ:
qweight, qzeros, scales, g_idx) has one `Shard` for each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self


@dataclass(frozen=True)
class Shard:
    """One rank's part of a stored tensor of `shape`: the `spans` (start, stop) along `dim`,
    concatenated. A parameter longer than its spans is padded with zeros."""

    shape: tuple[int, ...]
    dim: int
    spans: tuple[tuple[int, int], ...]

    @classmethod
    def whole(cls, shape: Sequence[int]) -> Self:
        """The whole tensor: every rank holds a copy."""
        return cls(tuple(shape), 0, ((0, shape[0]),))

    @classmethod
    def part(cls, shape: Sequence[int], dim: int, rank: int, size: int) -> Self:
        """The `rank`th of `size` equal parts along `dim`."""
        length = shape[dim] // size
        return cls(tuple(shape), dim, ((rank * length, (rank + 1) * length),))

    @property
    def local_shape(self) -> tuple[int, ...]:
        """Shape of the rank's part, without padding."""
        length = sum(stop - start for start, stop in self.spans)
        return (*self.shape[: self.dim], length, *self.shape[self.dim + 1 :])


class Sharded(Protocol):
    """A module with parameters that are not whole stored tensors."""

    @property
    def shards(self) -> Mapping[str, Shard]:
        """The shard of each such parameter, by attribute name. The spans of one may depend on the
        values of parameters that the module has registered before it."""
        ...
