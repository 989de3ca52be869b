"""Who computes what in the next step. Plain Python, no torch, no text.

    add -> waiting -> admit -> running -> finished
              ^                   |
              +----- preempt -----+

One loop serves prefill and decode: a running sequence gets as many of its uncomputed tokens as
the step's token budget allows (one when it decodes, a chunk when its prompt is long), then
waiting sequences are admitted while tokens, blocks and seats last. `running` followed by
`waiting` is always in order of arrival: the oldest comes first and the youngest is preempted
first, so the oldest always advances and nobody starves.
"""

from collections import deque
from collections.abc import Iterable
from collections.abc import Sequence as Ids
from dataclasses import dataclass

from moss_tp.engine.batch import Batch
from moss_tp.engine.block_manager import BlockManager
from moss_tp.engine.config import EngineConfig
from moss_tp.engine.sequence import Sequence
from moss_tp.layers.sampling.row import SampledToken


@dataclass(frozen=True)
class Chunk:
    """The next `num_tokens` uncomputed tokens of a sequence."""

    seq: Sequence
    num_tokens: int

    @property
    def samples(self) -> bool:
        return self.num_tokens == self.seq.num_uncomputed


class Scheduler:
    def __init__(self, config: EngineConfig, num_blocks: int) -> None:
        self.block_manager = BlockManager(num_blocks, config.block_size)
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.num_preemptions = 0
        self._max_num_seqs = config.max_num_seqs
        self._max_num_batched_tokens = config.max_num_batched_tokens
        self._max_model_len = config.context_length

    @property
    def has_work(self) -> bool:
        return bool(self.running or self.waiting)

    def add(self, seq: Sequence) -> None:
        self.waiting.append(seq)

    def schedule(self) -> list[Chunk]:
        """The chunks of the next step; at least one whenever there is work."""
        num_running = len(self.running)
        chunks = self._schedule_running()
        has_preempted = len(self.running) < num_running
        # Whoever was just preempted would come straight back for the blocks it gave up.
        if not has_preempted:
            budget = self._max_num_batched_tokens - sum(chunk.num_tokens for chunk in chunks)
            chunks.extend(self._admit_waiting(budget))
        return chunks

    def update(self, chunks: Ids[Chunk], sampled: Iterable[SampledToken]) -> list[Sequence]:
        """Books a computed step: the sequences that got a token, finished ones removed."""
        tokens = iter(sampled)
        advanced: list[Sequence] = []
        for chunk in chunks:
            seq, is_sampled = chunk.seq, chunk.samples
            seq.num_computed += chunk.num_tokens
            self.block_manager.commit(seq)
            if is_sampled:
                seq.append(next(tokens), self._max_model_len)
                advanced.append(seq)
                if seq.finish_reason is not None:
                    self._remove(seq)
        return advanced

    def abort(self, seq: Sequence) -> None:
        """Forgets a sequence between two steps; its blocks are free at once."""
        seq.finish_reason = "abort"
        self._remove(seq)

    def check_integrity(self) -> None:
        """AssertionError when blocks or queues are not what the sequences say."""
        self.block_manager.check_integrity(self.running)
        for seq in self.running:
            table_len = len(seq.block_table)
            assert seq.num_uncomputed > 0, f"{seq.request_id} runs with nothing to compute"
            assert table_len >= self.block_manager.num_needed(seq.num_computed)
        for seq in self.waiting:
            assert not seq.block_table, f"{seq.request_id} waits and holds blocks"
            assert seq.num_computed == 0, f"{seq.request_id} waits and has computed tokens"

    def _schedule_running(self) -> list[Chunk]:
        budget = self._max_num_batched_tokens
        chunks: list[Chunk] = []
        position = 0
        # `running` may lose its tail while this goes along it.
        while position < len(self.running) and budget > 0:
            seq = self.running[position]
            if self._make_room(seq):
                chunks.append(Chunk(seq, min(seq.num_uncomputed, budget)))
                budget -= chunks[-1].num_tokens
                position += 1
        return chunks

    def _make_room(self, seq: Sequence) -> bool:
        """Blocks for `seq`, at the cost of younger ones; False when it had to go itself."""
        while not self.block_manager.grow(seq):
            youngest = self.running.pop()
            self.block_manager.release(youngest)
            youngest.num_preemptions += 1
            self.num_preemptions += 1
            self.waiting.appendleft(youngest)
            if youngest is seq:
                return False
        return True

    def _admit_waiting(self, budget: int) -> Iterable[Chunk]:
        while self.waiting and budget > 0 and len(self.running) < self._max_num_seqs:
            seq = self.waiting[0]
            if not self.block_manager.admit(seq):
                return
            if seq.num_preemptions == 0:
                seq.num_cached_tokens = seq.num_computed
            self.running.append(self.waiting.popleft())
            chunk = Chunk(seq, min(seq.num_uncomputed, budget))
            budget -= chunk.num_tokens
            yield chunk

    def _remove(self, seq: Sequence) -> None:
        if seq.block_table:
            self.running.remove(seq)
            self.block_manager.release(seq)
        else:
            self.waiting.remove(seq)


def to_batch(chunks: Ids[Chunk], block_size: int) -> Batch:
    """What the ranks must know of `chunks`, before `update` books them."""
    spans = [(c.seq, c.seq.num_computed, c.seq.num_computed + c.num_tokens) for c in chunks]
    return Batch(
        token_ids=tuple(token for seq, a, b in spans for token in seq.token_ids[a:b]),
        query_lens=tuple(b - a for _, a, b in spans),
        context_lens=tuple(b for _, _, b in spans),
        block_tables=tuple(tuple(seq.block_table[: -(-b // block_size)]) for seq, _, b in spans),
        samples=tuple(chunk.samples for chunk in chunks),
    )
