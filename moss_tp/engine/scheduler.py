"""Who computes what in the next step. Plain Python, no torch, no text.

    add -> waiting -> admit -> running -> finished
              ^                   |
              +----- preempt -----+

Every running sequence that decodes gets its token in every step. What is left of the step's
token budget goes to prompts, chunk by chunk: those that run, then waiting ones, admitted while
tokens, blocks and seats last. Where somebody decodes, prompts get no more than
`max_mixed_prefill_tokens`, so that a long one does not stall the others.

`running` and `waiting` are both in order of rank (see WaitingQueue). The last in order is
preempted first and nobody overtakes the head of the queue, so the first of all always advances:
when N requests rank before it, one finishes within (N + 1) * (max_num_seqs + 1) * max_model_len
steps.
"""

import time
from bisect import insort
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Ids
from dataclasses import dataclass

import numpy as np

from moss_tp.engine.batch import Batch
from moss_tp.engine.block_manager import BlockManager
from moss_tp.engine.config import EngineConfig
from moss_tp.engine.sequence import Sequence
from moss_tp.engine.waiting_queue import WaitingQueue, rank_of
from moss_tp.layers.sampling.row import SampledToken


@dataclass(frozen=True)
class Chunk:
    """The next `num_tokens` uncomputed tokens of a sequence."""

    seq: Sequence
    num_tokens: int

    @property
    def num_logits(self) -> int:
        """After how many of its tokens, at its end, the next one is sampled."""
        return int(self.num_tokens == self.seq.num_uncomputed)

    def token_ids(self) -> list[int]:
        start = self.seq.num_computed
        return self.seq.token_ids[start : start + self.num_tokens]


class Scheduler:
    """`clock` says the time in seconds; only differences count."""

    def __init__(
        self,
        config: EngineConfig,
        num_blocks: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.block_manager = BlockManager(num_blocks, config.block_size)
        self.waiting = WaitingQueue(clock)
        self.running: list[Sequence] = []
        self.num_preemptions = 0
        self._max_num_seqs = config.max_num_seqs
        self._max_num_batched_tokens = config.max_num_batched_tokens
        self._max_mixed_prefill_tokens = config.max_mixed_prefill_tokens
        self._max_model_len = config.context_length

    @property
    def has_work(self) -> bool:
        return bool(self.running or self.waiting)

    def add(self, seq: Sequence, priority: int = 0, deadline_s: float | None = None) -> None:
        """A smaller `priority` is served earlier. `deadline_s`: see `expire`."""
        self.waiting.add(seq, priority, deadline_s)

    def expire(self) -> list[Sequence]:
        """Removes and returns those that waited longer than their `deadline_s`."""
        expired = self.waiting.expired()
        for seq in expired:
            self.abort(seq)
        return expired

    def schedule(self) -> list[Chunk]:
        """The chunks of the next step, decodes first; at least one whenever there is work."""
        num_running = len(self.running)
        self._grow_running()
        has_preempted = len(self.running) < num_running
        chunks = [Chunk(seq, 1) for seq in self.running if seq.num_uncomputed == 1]
        budget = self._max_num_batched_tokens - len(chunks)
        if chunks:
            budget = min(budget, self._max_mixed_prefill_tokens)
        for chunk in self._prefill_running(budget):
            chunks.append(chunk)
            budget -= chunk.num_tokens
        # Whoever was just preempted would come straight back for the blocks it gave up.
        if not has_preempted:
            chunks.extend(self._admit_waiting(budget))
        return chunks

    def update(self, chunks: Ids[Chunk], sampled: Iterable[SampledToken]) -> list[Sequence]:
        """Books a computed step: the sequences that got a token, finished ones removed."""
        tokens = iter(sampled)
        advanced: list[Sequence] = []
        for chunk in chunks:
            seq, is_sampled = chunk.seq, chunk.num_logits > 0
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
        for queue in (self.running, list(self.waiting)):
            assert queue == sorted(queue, key=rank_of), "not in order of rank"
        for seq in self.running:
            table_len = len(seq.block_table)
            assert seq.num_uncomputed > 0, f"{seq.request_id} runs with nothing to compute"
            assert table_len >= self.block_manager.num_needed(seq.num_computed)
        for seq in self.waiting:
            assert not seq.block_table, f"{seq.request_id} waits and holds blocks"
            assert seq.num_computed == 0, f"{seq.request_id} waits and has computed tokens"

    def _grow_running(self) -> None:
        """Gives all that run the blocks they need, at the cost of the last in order."""
        position = 0
        # `running` may lose its tail while this goes along it.
        while position < len(self.running):
            if self.block_manager.grow(self.running[position]):
                position += 1
            else:
                self._preempt(self.running.pop())

    def _preempt(self, seq: Sequence) -> None:
        self.block_manager.release(seq)
        seq.num_preemptions += 1
        self.num_preemptions += 1
        self.waiting.put_back(seq)

    def _prefill_running(self, budget: int) -> Iterable[Chunk]:
        for seq in self.running:
            if budget > 0 and seq.num_uncomputed > 1:
                chunk = Chunk(seq, min(seq.num_uncomputed, budget))
                budget -= chunk.num_tokens
                yield chunk

    def _admit_waiting(self, budget: int) -> Iterable[Chunk]:
        while self.waiting and budget > 0 and len(self.running) < self._max_num_seqs:
            seq = self.waiting.head
            if not self.block_manager.admit(seq):
                return
            if seq.num_preemptions == 0:
                seq.num_cached_tokens = seq.num_computed
            insort(self.running, self.waiting.pop(), key=rank_of)
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
    query_lens = np.array([chunk.num_tokens for chunk in chunks])
    context_lens = np.array([chunk.seq.num_computed for chunk in chunks]) + query_lens
    table_lens = -(-context_lens // block_size)
    tables = [
        chunk.seq.block_table[:length]
        for chunk, length in zip(chunks, table_lens.tolist(), strict=True)
    ]
    return Batch(
        query_lens=query_lens,
        context_lens=context_lens,
        num_logits=np.array([chunk.num_logits for chunk in chunks]),
        table_lens=table_lens,
        token_ids=np.array([token_id for chunk in chunks for token_id in chunk.token_ids()]),
        block_tables=np.frombuffer(b"".join(tables), np.int64),
    )
