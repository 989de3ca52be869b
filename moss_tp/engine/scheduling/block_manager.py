"""Which sequences hold which KV blocks, and which full blocks can be shared. No torch.

    a block is    held:  ref_count > 0, in one block table or, as a shared prefix, in several
                  free:  ref_count = 0, in `_free`; its content may still be cached by its hash

A full block is cached by the hash of its tokens chained to its predecessor's hash. The salt enters
the chain at the first block that is not wholly within the sequence's shared tokens:

    block        0      1      2      3      block_size 4, num_shared_tokens 10
                 shared shared salted ...    two blocks for every salt, the rest for one

so equal hashes mean equal prefix and positions, and beyond the shared tokens equal salt. `_free`
is in order of eviction: least recently used first, the tail of a sequence before its head.
Blocks are never pinned. It works on the tokens and tables of Sequences, not on requests.
"""

from array import array
from collections import Counter, OrderedDict
from collections.abc import Iterable
from hashlib import sha256

from moss_tp.engine.scheduling.sequence import Sequence


class BlockManager:
    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._ref_counts = [0] * num_blocks
        self._hashes: list[bytes | None] = [None] * num_blocks
        self._cached: dict[bytes, int] = {}
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_blocks))

    @property
    def num_free(self) -> int:
        return len(self._free)

    def num_needed(self, num_tokens: int) -> int:
        """The number of blocks for `num_tokens` tokens."""
        return -(-num_tokens // self.block_size)

    def admit(self, seq: Sequence) -> bool:
        """Allocates blocks for all tokens of a sequence that has none, reusing a cached prefix.

        False, with nothing changed, when too few are free. Cached tokens count as computed. No
        token is taken from the cache whose logits are needed, as the last one's are.
        """
        self._extend_hashes(seq, seq.num_tokens)
        prefix = self._find_prefix(seq)
        num_new = self.num_needed(seq.num_tokens) - len(prefix)
        num_revived = sum(self._ref_counts[block] == 0 for block in prefix)
        if num_new + num_revived > self.num_free:
            return False
        for block in prefix:
            self._add_reference(block)
        seq.block_table = array("q", prefix)
        seq.block_table.extend(self._allocate() for _ in range(num_new))
        seq.num_committed_blocks = len(prefix)
        seq.num_computed = len(prefix) * self.block_size
        return True

    def outgrown(self, seqs: Iterable[Sequence]) -> list[Sequence]:
        """Those whose tables are too short for their tokens."""
        size = self.block_size
        return [seq for seq in seqs if len(seq.token_ids) > len(seq.block_table) * size]

    def grow(self, seq: Sequence, num_drafted: int = 0) -> bool:
        """Extends a sequence's table for all its tokens, and for those drafted for a step.

        False, with nothing changed, when too few blocks are free.
        """
        num_new = -(-(len(seq.token_ids) + num_drafted) // self.block_size) - len(seq.block_table)
        if num_new <= 0:
            return True
        if num_new > self.num_free:
            return False
        seq.block_table.extend(self._allocate() for _ in range(num_new))
        return True

    def trim(self, seq: Sequence) -> None:
        """Frees the blocks that `grow` allocated for drafted tokens that were rejected."""
        num_needed = self.num_needed(seq.num_tokens)
        for block in reversed(seq.block_table[num_needed:]):
            self._drop_reference(block)
        del seq.block_table[num_needed:]

    def commit(self, seq: Sequence) -> None:
        """Caches the full blocks of `seq` that a step has computed."""
        num_full = seq.num_computed // self.block_size
        if num_full == seq.num_committed_blocks:
            return
        self._extend_hashes(seq, seq.num_computed)
        for i in range(seq.num_committed_blocks, num_full):
            self._register(seq.block_table[i], seq.block_hashes[i])
        seq.num_committed_blocks = num_full

    def release(self, seq: Sequence) -> None:
        """Frees a sequence's blocks. Their content stays cached until they are evicted."""
        for block in reversed(seq.block_table):
            self._drop_reference(block)
        seq.block_table = array("q")
        seq.num_committed_blocks = 0
        seq.num_computed = 0

    def check_integrity(self, live: Iterable[Sequence]) -> None:
        """AssertionError when the state does not match the tables of the live sequences."""
        tables = [seq.block_table for seq in live]
        expected = Counter(block for table in tables for block in table)
        for block, count in enumerate(self._ref_counts):
            assert count == expected[block], f"block {block}: {count} refs, {expected[block]} held"
            assert (count == 0) == (block in self._free), f"block {block}: free list is wrong"
        for table in tables:
            assert len(set(table)) == len(table), f"a block is twice in one table: {table}"
        for digest, block in self._cached.items():
            assert self._hashes[block] == digest, f"block {block} is cached under another hash"
        num_hashed = sum(digest is not None for digest in self._hashes)
        assert num_hashed == len(self._cached), f"{num_hashed} hashed, {len(self._cached)} cached"

    def _find_prefix(self, seq: Sequence) -> list[int]:
        blocks: list[int] = []
        for digest in seq.block_hashes[: seq.max_cached_tokens // self.block_size]:
            block = self._cached.get(digest)
            if block is None:
                break
            blocks.append(block)
        return blocks

    def _extend_hashes(self, seq: Sequence, num_tokens: int) -> None:
        size, hashes = self.block_size, seq.block_hashes
        for i in range(len(hashes), num_tokens // size):
            digest = sha256(hashes[-1] if hashes else b"")
            if i == seq.num_shared_tokens // size:
                digest.update(sha256(seq.salt.encode()).digest())
            digest.update(array("q", seq.token_ids[i * size : (i + 1) * size]).tobytes())
            hashes.append(digest.digest())

    def _register(self, block: int, digest: bytes) -> None:
        """A hash that is cached already keeps its first block: both have the same content."""
        if self._hashes[block] is None and digest not in self._cached:
            self._hashes[block] = digest
            self._cached[digest] = block

    def _add_reference(self, block: int) -> None:
        self._free.pop(block, None)
        self._ref_counts[block] += 1

    def _drop_reference(self, block: int) -> None:
        """Frees the block with its last reference. Uncached blocks are reused first."""
        self._ref_counts[block] -= 1
        if self._ref_counts[block] == 0:
            self._free[block] = None
            if self._hashes[block] is None:
                self._free.move_to_end(block, last=False)

    def _allocate(self) -> int:
        """Allocates the free block that is first in order of eviction, and uncaches it."""
        block, _ = self._free.popitem(last=False)
        digest = self._hashes[block]
        if digest is not None:
            del self._cached[digest]
            self._hashes[block] = None
        self._ref_counts[block] = 1
        return block
