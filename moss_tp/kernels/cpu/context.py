"""Where the tokens of a sequence lie in the paged cache, for one head.

The rows of a block's tokens lie one after the other, so places are worked out once a block.
"""

from typing import Any, NamedTuple

from moss_tp.kernels.cpu.elements import row_bytes
from moss_tp.kernels.cpu.vectors import LINE
from moss_tp.native.compiled import inner
from moss_tp.native.simd import prefetch


class Head(NamedTuple):
    """One head of the caches `(num_blocks, heads, block_size)` rows of `kind`, see `elements`."""

    k_cache: int  # addresses
    v_cache: int
    heads: int
    number: int
    head_dim: int
    block_size: int
    kind: int


@inner
def find_run(head: Head, table: Any, position: int, count: int) -> tuple[int, int]:
    """How far into either cache the row of the token at `position` stands, in bytes, and how many
    of the `count` rows from it on lie one after the other."""
    block, offset = table[position // head.block_size], position % head.block_size
    row = (block * head.heads + head.number) * head.block_size + offset
    return row * row_bytes(head.head_dim, head.kind), min(count, head.block_size - offset)


@inner
def ask(head: Head, table: Any, start: int, count: int) -> None:
    """Asks memory for the rows of `count` tokens, if any, from `start` on."""
    size, done = row_bytes(head.head_dim, head.kind), 0
    while done < count:
        own, run = find_run(head, table, start + done, count - done)
        for line in range(own, own + run * size, LINE):
            prefetch(head.k_cache + line)
            prefetch(head.v_cache + line)
        done += run
