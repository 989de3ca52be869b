"""How a product with a quantized weight is cut. See `linear.tiles`."""

from dataclasses import dataclass, replace

import torch

from moss_tp.kernels.cuda.linear.cut import FEW_ROWS
from moss_tp.kernels.cuda.linear.tiles import BUSY


@dataclass(frozen=True)
class Tile:
    """Of outputs and rows; `stages` tiles of K are on their way from memory. See `linear.tiles`."""

    outputs: int
    rows: int
    warps: int
    stages: int


# By the most rows that each is for; the last takes any. All are loaded by threads: by TMA none was
# faster, and some were wrong (docs/performance.md). Up to 64 rows half the outputs pay where whole
# tiles are too few.
_HOPPER = {
    16: Tile(128, 16, warps=4, stages=4),
    32: Tile(128, 32, warps=4, stages=3),
    64: Tile(128, 64, warps=8, stages=3),
    128: Tile(128, 128, warps=8, stages=3),
    0: Tile(256, 128, warps=8, stages=3),
}
# At most 99 KiB of shared memory, for sm_86.
_AMPERE = {
    16: Tile(64, 16, warps=4, stages=4),
    32: Tile(64, 32, warps=4, stages=3),
    64: Tile(128, 64, warps=8, stages=3),
    0: Tile(128, 128, warps=8, stages=2),
}
# For 8 bits, where some of the tiles above spill, by Triton 3.6 or 3.8. None was timed.
_HOPPER_8 = _HOPPER | {0: _HOPPER[128]}
_AMPERE_8 = _AMPERE | {32: Tile(64, 32, warps=8, stages=3), 0: _AMPERE[64]}
_BLACKWELL_8 = {
    16: Tile(64, 16, warps=8, stages=4),
    32: Tile(64, 32, warps=8, stages=3),
    64: Tile(64, 64, warps=8, stages=3),
    0: Tile(128, 128, warps=4, stages=3),
}
_FEW = 2 * BUSY // 3  # programs: about two on each multiprocessor of the largest GPU


def choose_tile(
    rows: int, outputs: int, pieces: int, bits: int, dtype: torch.dtype, capability: int
) -> Tile:
    """`capability` is 80 for sm_80. Small where large tiles would leave multiprocessors idle."""
    table = _table(bits, capability)
    tile = table[next((limit for limit in table if rows <= limit), 0)]
    # Unpacking to bf16 takes more registers, and so does the sum of two leaves.
    if tile.outputs > 128 and (dtype == torch.bfloat16 or pieces > 1):
        tile = replace(tile, outputs=128)
    num_programs = -(-outputs // tile.outputs) * -(-rows // tile.rows) * pieces
    if tile.rows <= 64 and num_programs < _FEW:
        return _narrow(tile)
    return _narrow(table[64]) if num_programs < BUSY // 4 else tile


def _narrow(tile: Tile) -> Tile:
    return replace(tile, outputs=64, warps=4) if tile.outputs > 64 else tile


def row_buckets(capability: int) -> tuple[int, ...]:
    """See `linear.tiles.row_buckets`. Those of 8 bits are among them."""
    limits = [FEW_ROWS, *(limit for limit in _table(4, capability) if limit)]
    return tuple(sorted({1, *limits, *(limit + 1 for limit in limits)}))


def _table(bits: int, capability: int) -> dict[int, Tile]:
    if not 90 <= capability < 120:  # sm_120 has the instructions and the shared memory of sm_86
        return _AMPERE_8 if bits == 8 else _AMPERE
    if bits == 8:
        return _BLACKWELL_8 if capability >= 100 else _HOPPER_8
    return _HOPPER
