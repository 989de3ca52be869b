"""How a product is cut into tiles of outputs and rows.

Tiles are no part of the order of operations: an element is computed by the same instructions in the
same order in each of them.
"""

from dataclasses import dataclass, replace

import torch

from moss_tp.kernels.cuda.linear.cut import FEW_ROWS

# Programs that keep a GPU busy: about three on each multiprocessor of the largest.
BUSY = 384


@dataclass(frozen=True)
class Tile:
    """`depth` of K at a time, `stages` of them on their way from memory; `is_bulk`: loaded by TMA,
    which needs rows that all begin at multiples of 16 bytes."""

    outputs: int
    rows: int
    depth: int
    warps: int
    stages: int
    is_bulk: bool = False

    @property
    def by_threads(self) -> "Tile":
        """One that does without TMA."""
        return replace(self, outputs=128, is_bulk=False) if self.is_bulk else self


# By the most rows that each is for; the last takes any. Up to 32 rows all that counts is how fast
# weights arrive: two programs share a multiprocessor, and each has two or three times 16 KiB on
# their way. With more rows, a tile of more outputs reads x less often from the L2 cache.
#
# wgmma's M is 64 a warpgroup, so every tile is a multiple of that: all rows have one instruction.
_HOPPER = {
    16: Tile(64, 16, 128, warps=4, stages=5),
    32: Tile(64, 32, 128, warps=4, stages=4),
    64: Tile(128, 64, 64, warps=8, stages=4),
    128: Tile(64, 128, 64, warps=4, stages=3),
    0: Tile(256, 128, 64, warps=8, stages=4, is_bulk=True),
}
# At most 99 KiB of shared memory, for sm_86. Deeper tiles spill there with Triton 3.6.
_AMPERE = {
    16: Tile(64, 16, 128, warps=4, stages=4),
    32: Tile(64, 32, 64, warps=4, stages=5),
    64: Tile(128, 64, 64, warps=8, stages=3),
    512: Tile(128, 128, 32, warps=8, stages=4),
    0: Tile(128, 256, 32, warps=8, stages=4),
}
# Without matrix instructions, which have no fp32 in full.
_FP32 = {
    16: Tile(64, 16, 32, warps=4, stages=2),
    0: Tile(64, 64, 32, warps=8, stages=2),
}


def choose_tile(rows: int, outputs: int, pieces: int, dtype: torch.dtype, capability: int) -> Tile:
    """`capability` is 80 for sm_80. Small where large tiles would leave multiprocessors idle."""
    table = _table(dtype, capability)
    tile = table[next((limit for limit in table if rows <= limit), 0)]
    num_programs = -(-outputs // tile.outputs) * -(-rows // tile.rows) * pieces
    if tile.outputs > 64 and num_programs < BUSY // 4 and tile.rows <= 128:
        return replace(tile, outputs=64, rows=64, warps=4, is_bulk=False)
    return tile


def row_buckets(dtype: torch.dtype, capability: int) -> tuple[int, ...]:
    """Where the choice of a tile or of pieces may change: the fewest and the most rows of each."""
    limits = [FEW_ROWS, *(limit for limit in _table(dtype, capability) if limit)]
    return tuple(sorted({1, *limits, *(limit + 1 for limit in limits)}))


def _table(dtype: torch.dtype, capability: int) -> dict[int, Tile]:
    if dtype == torch.float32:
        return _FP32
    # sm_120 has the instructions and the shared memory of sm_86.
    return _HOPPER if 90 <= capability < 120 else _AMPERE
