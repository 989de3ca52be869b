"""Memory for the partial results of short tiles: how much a step needs, and whether it uses any.

In a step with few rows a program attends to one piece of a context, so that all of the GPU reads
one sequence's cache, and leaves its maximum, sum and weighted values for the merge. With many rows
a program goes through all pieces itself. Both give the same bits.
"""

from moss_tp.kernels.device_plan import StepLimits

PIECE = 128  # tokens; pieces start at positions 0, 128, ...
MAX_BYTES = 32 << 20


def num_pieces(max_context: int) -> int:
    return -(-max_context // PIECE)


def row_bytes(pieces: int, num_heads: int, head_dim: int) -> int:
    """Partials of one row: its maximum, its sum and `head_dim` values a head and piece, fp32."""
    return pieces * num_heads * (head_dim + 2) * 4


def has_partials(rows: int, max_context: int, num_heads: int, head_dim: int) -> bool:
    """Whether a step's short tiles are attended piece by piece. Known from shapes alone."""
    pieces = num_pieces(max_context)
    return pieces > 1 and rows * row_bytes(pieces, num_heads, head_dim) <= MAX_BYTES


def partials_bytes(limits: StepLimits, num_heads: int, head_dim: int) -> int:
    """What `attend` needs of `partials` in the largest of the steps within `limits`."""
    most = 0
    for pieces in range(2, num_pieces(limits.max_context) + 1):
        row = row_bytes(pieces, num_heads, head_dim)
        most = max(most, min(limits.max_rows, MAX_BYTES // row) * row)
    return most if limits.max_short_tiles else 0
