"""Where a head's rows of a sequence lie in the paged cache.

The rows of a block's tokens are contiguous for a head, so addresses are computed once a block.
"""

from typing import Any, NamedTuple

from moss_tp.kernels.cpu.attention.cache_rows import row_bytes
from moss_tp.native.compiled import inner
from moss_tp.native.memory import prefetch
from moss_tp.native.vectors import CACHE_LINE


class HeadCache(NamedTuple):
    """One head of the caches `(num_blocks, num_heads, block_size)` rows, see `cache_rows`."""

    k_cache: int  # address
    v_cache: int
    num_heads: int
    head: int
    head_dim: int
    block_size: int
    dtype: int


@inner
def find_run(cache: HeadCache, block_table: Any, position: int, count: int) -> tuple[int, int]:
    """The offset of a token's row in either cache, in bytes, and how many of the `count` rows
    from `position` on are contiguous."""
    block, offset = block_table[position // cache.block_size], position % cache.block_size
    row = (block * cache.num_heads + cache.head) * cache.block_size + offset
    return row * row_bytes(cache.head_dim, cache.dtype), min(count, cache.block_size - offset)


@inner
def prefetch_tokens(cache: HeadCache, block_table: Any, start: int, count: int) -> None:
    """Prefetches the K and V rows of `count` tokens (none if negative) from `start` on."""
    size, done = row_bytes(cache.head_dim, cache.dtype), 0
    while done < count:
        offset, run = find_run(cache, block_table, start + done, count - done)
        for line in range(offset, offset + run * size, CACHE_LINE):
            prefetch(cache.k_cache + line)
            prefetch(cache.v_cache + line)
        done += run
