"""Who holds which KV block, and which full blocks can be shared. Plain Python, no torch.

    a block is    held:  ref_count > 0, in one block table or, a shared prefix, in several
                  free:  ref_count = 0, in `_free`; its content may still be known by its hash

A full block is known by the hash of its tokens chained to its predecessor's hash. The salt enters
the chain at the first block that is not wholly within the sequence's shared tokens:

    block        0      1      2      3      block_size 4, num_shared_tokens 10
                 shared shared salted ...    two blocks for every salt, the rest for one

so equal hashes mean equal prefix and positions, and beyond the shared tokens equal salt. Freed
blocks wait in `_free` in the order they are evicted: least recently used first, tails before
heads. Nothing is ever pinned. It knows no requests, only Sequences' tokens and tables.
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
        """Blocks that hold `num_tokens` tokens."""
        return -(-num_tokens // self.block_size)

    def admit(self, seq: Sequence) -> bool:
        """Gives an empty sequence blocks for all its tokens, reusing a cached prefix.

        False, with nothing changed, when there are too few. The cached tokens count as computed;
        at least the last token never is, since its logits are wanted.
        """
        self._extend_hashes(seq, seq.num_tokens)
        prefix = self._find_prefix(seq)
        num_new = self.num_needed(seq.num_tokens) - len(prefix)
        num_revived = sum(self._ref_counts[block] == 0 for block in prefix)
        if num_new + num_revived > self.num_free:
            return False
        for block in prefix:
            self._hold(block)
        seq.block_table = array("q", prefix)
        seq.block_table.extend(self._take() for _ in range(num_new))
        seq.num_committed_blocks = len(prefix)
        seq.num_computed = len(prefix) * self.block_size
        return True

    def grow(self, seq: Sequence, num_drafted: int = 0) -> bool:
        """Lets a sequence's table hold all its tokens, and drafted ones for a step.

        False, with nothing changed, when the blocks run out.
        """
        num_new = self.num_needed(seq.num_tokens + num_drafted) - len(seq.block_table)
        if num_new <= 0:
            return True
        if num_new > self.num_free:
            return False
        seq.block_table.extend(self._take() for _ in range(num_new))
        return True

    def trim(self, seq: Sequence) -> None:
        """Takes back what `grow` gave for drafted tokens that did not come."""
        num_needed = self.num_needed(seq.num_tokens)
        for block in reversed(seq.block_table[num_needed:]):
            self._let_go(block)
        del seq.block_table[num_needed:]

    def commit(self, seq: Sequence) -> None:
        """Makes the full blocks of `seq` known, once a step has computed them."""
        num_full = seq.num_computed // self.block_size
        if num_full == seq.num_committed_blocks:
            return
        self._extend_hashes(seq, seq.num_computed)
        for i in range(seq.num_committed_blocks, num_full):
            self._register(seq.block_table[i], seq.block_hashes[i])
        seq.num_committed_blocks = num_full

    def release(self, seq: Sequence) -> None:
        """Takes a sequence's blocks back. Their content stays known until it is evicted."""
        for block in reversed(seq.block_table):
            self._let_go(block)
        seq.block_table = array("q")
        seq.num_committed_blocks = 0
        seq.num_computed = 0

    def check_integrity(self, live: Iterable[Sequence]) -> None:
        """AssertionError when the books do not agree with the live sequences' tables."""
        tables = [seq.block_table for seq in live]
        expected = Counter(block for table in tables for block in table)
        for block, count in enumerate(self._ref_counts):
            assert count == expected[block], f"block {block}: {count} refs, {expected[block]} held"
            assert (count == 0) == (block in self._free), f"block {block}: free list is wrong"
        for table in tables:
            assert len(set(table)) == len(table), f"a block is twice in one table: {table}"
        for digest, block in self._cached.items():
            assert self._hashes[block] == digest, f"block {block} is cached under another hash"
        known = sum(digest is not None for digest in self._hashes)
        assert known == len(self._cached), f"{known} blocks have a hash, {len(self._cached)} known"

    def _find_prefix(self, seq: Sequence) -> list[int]:
        blocks: list[int] = []
        for digest in seq.block_hashes[: (seq.num_tokens - 1) // self.block_size]:
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
        """A hash that is known already keeps its first block: both hold the same content."""
        if self._hashes[block] is None and digest not in self._cached:
            self._hashes[block] = digest
            self._cached[digest] = block

    def _hold(self, block: int) -> None:
        self._free.pop(block, None)
        self._ref_counts[block] += 1

    def _let_go(self, block: int) -> None:
        """Without its last holder a block is free; what nobody knows is taken first."""
        self._ref_counts[block] -= 1
        if self._ref_counts[block] == 0:
            self._free[block] = None
            if self._hashes[block] is None:
                self._free.move_to_end(block, last=False)

    def _take(self) -> int:
        """The free block that is evicted first, its old content forgotten."""
        block, _ = self._free.popitem(last=False)
        digest = self._hashes[block]
        if digest is not None:
            del self._cached[digest]
            self._hashes[block] = None
        self._ref_counts[block] = 1
        return block
