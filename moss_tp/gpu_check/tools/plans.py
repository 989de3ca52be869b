"""A step's plan on the device, made by hand: chunks of sequences that lie anywhere in the cache."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from moss_tp.kernels.device_plan import LONG_ROWS, SHORT_ROWS, DevicePlan

Tile = tuple[int, int, int]


@dataclass(frozen=True)
class Chunk:
    """Rows `start` to `end` of a sequence whose blocks are `table`."""

    table: Sequence[int]
    start: int
    end: int


def device_plan(
    chunks: Sequence[Chunk], block_size: int, device: torch.device, min_tokens: int = 0
) -> DevicePlan:
    """All tables are as long as the longest, and hold at least `min_tokens`."""
    width = max(-(-min_tokens // block_size), *(len(chunk.table) for chunk in chunks))
    positions = [place for chunk in chunks for place in range(chunk.start, chunk.end)]
    slots = [
        chunk.table[place // block_size] * block_size + place % block_size
        for chunk in chunks
        for place in range(chunk.start, chunk.end)
    ]
    short, long = _tiles(chunks)
    return DevicePlan(
        positions=_ints(positions, device),
        slots=_ints(slots, device),
        context_lens=_ints([chunk.end for chunk in chunks], device),
        block_tables=_ints(
            [[*chunk.table, *[0] * (width - len(chunk.table))] for chunk in chunks], device
        ),
        short_tiles=_ints(short, device).reshape(-1, 3),
        long_tiles=_ints(long, device).reshape(-1, 3),
        block_size=block_size,
    )


def _tiles(chunks: Sequence[Chunk]) -> tuple[list[Tile], list[Tile]]:
    """The short ones, and the long ones."""
    short: list[Tile] = []
    long: list[Tile] = []
    first = 0
    for index, chunk in enumerate(chunks):
        count = chunk.end - chunk.start
        tiles, size = (short, SHORT_ROWS) if count <= SHORT_ROWS else (long, LONG_ROWS)
        for row in range(first, first + count, size):
            tiles.append((index, row, min(row + size, first + count)))
        first += count
    return short, long


def _ints(values: object, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.int32, device=device)
