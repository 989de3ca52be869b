"""Memory for the partial results of short tiles: how much a step needs, and whether it uses any.

With few short tiles each piece of a context has a program of its own, so that all of the GPU reads
one sequence's cache, and leaves maxima, sums and weighted values for the merge. With many tiles a
program goes through all pieces itself: there are programs enough. Both give the same bits.

A row's place in partials is its place in the step, or where the step has more rows than its short
tiles can, beside long tiles, its place in the tile behind SHORT_ROWS for each tile before.
"""

from functools import cache

from moss_tp.kernels.device_plan import SHORT_ROWS, StepLimits

PIECE = 128  # tokens; pieces start at positions 0, 128, ...
MAX_BYTES = 32 << 20
# Tiles and heads on each multiprocessor from which on they are programs enough. Fewer (an H100
# holds two) would do for contexts of one length; where they differ, the longest keeps the others.
ENOUGH_PROGRAMS = 5


def num_pieces(max_context: int) -> int:
    return -(-max_context // PIECE)


def row_bytes(pieces: int, num_heads: int, head_dim: int) -> int:
    """Partials of one row: its maximum, its sum and `head_dim` values a head and piece, fp32."""
    return pieces * num_heads * (head_dim + 2) * 4


def num_places(rows: int, short_tiles: int) -> int:
    """Rows that partials have room for, in a step of `rows`."""
    return min(rows, SHORT_ROWS * short_tiles)


def places_apart(rows: int, short_tiles: int) -> int:
    """Places of each tile; 0 where a row's place is that in the step."""
    return SHORT_ROWS if SHORT_ROWS * short_tiles < rows else 0


def has_partials(places: int, max_context: int, num_heads: int, head_dim: int) -> bool:
    """Whether there is memory to attend short tiles with `num_places` piece by piece, and more than
    one piece. Known from shapes."""
    pieces = num_pieces(max_context)
    return pieces > 1 and 0 < places * row_bytes(pieces, num_heads, head_dim) <= MAX_BYTES


def are_few(short_tiles: int, num_heads: int, multiprocessors: int) -> bool:
    """Whether a program for each tile and head would leave a part of the GPU idle."""
    return short_tiles * num_heads < ENOUGH_PROGRAMS * multiprocessors


@cache
def partials_bytes(limits: StepLimits, num_heads: int, head_dim: int) -> int:
    """What `attend` needs of `partials` in the largest of the steps within `limits`."""
    most, places = 0, min(limits.max_rows, SHORT_ROWS * limits.max_short_tiles)
    for pieces in range(2, num_pieces(limits.max_context) + 1):
        row = row_bytes(pieces, num_heads, head_dim)
        most = max(most, min(places, MAX_BYTES // row) * row)
    return most
