"""Chooses the tokens that the next step computes. Plain Python: no torch, no text.

    add -> waiting -> admit -> running -> finished
              ^                   |
              +----- preempt -----+

Every sequence that decodes gets a token in every step. The rest of the step's token budget goes
to chunks of prompts: first of running sequences, then of waiting ones, which are admitted while
the budget, the blocks and `max_num_seqs` allow. In a step that also decodes, prompts get at most
`max_mixed_prefill_tokens`, so that a long prompt does not stall the decodes. The remaining budget
goes to drafted tokens that are worth verifying; no sequence is preempted for them.

`running` and `waiting` are in order of rank (see WaitingQueue). The last in order is preempted
first, and no sequence overtakes the head of the queue, so the first in order always advances: a
request with N requests before it finishes within (N + 1) * (max_num_seqs + 1) * max_model_len
steps. Among the N are continuations that arrive later: next passes, and resumed replies.

A device is kept busy by a step that is scheduled while the one before it runs: `schedule_behind`.

    step n     . . t          t is sampled by step n, and computed by step n + 1, where it is
    step n+1         t u      pending: its id is on the device, and not known here

Positions, blocks and budgets are as if t were known. If it turns out to end its sequence, then
that sequence's row of step n + 1 is void: what it samples is dropped, what it writes is never
committed, and who gets its blocks writes to them later. Blocks are committed, and hashed, only
once a step has ended, up to what it has computed: all of that is known.
"""

import time
from bisect import insort
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Ids
from itertools import zip_longest

from moss_tp.engine.scheduling.adaptive_limits import AdaptiveLimits
from moss_tp.engine.scheduling.block_manager import BlockManager
from moss_tp.engine.scheduling.chunk import Chunk
from moss_tp.engine.scheduling.drafting import Drafting, Outlook
from moss_tp.engine.scheduling.scored import Scoring
from moss_tp.engine.scheduling.sequence import FinishReason, Sequence
from moss_tp.engine.scheduling.waiting_queue import WaitingQueue, rank_of
from moss_tp.engine_config import EngineConfig
from moss_tp.sampling.row import SampledToken


class Scheduler:
    """`clock` returns seconds; only differences of its values matter."""

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
        self.num_drafted = 0
        self.num_accepted = 0
        self.scoring = Scoring()
        self._limits = AdaptiveLimits(config.max_num_batched_tokens, config.max_num_seqs)
        self._advanced_step: Ids[Chunk] = ()  # see `_advance`
        self._is_lasting = False  # it only decodes, and none of its sequences is at its end
        self._max_mixed_prefill_tokens = config.mixed_prefill_limit
        self._max_model_len = config.context_length
        self._drafting = Drafting(config, self.block_manager)

    @property
    def has_work(self) -> bool:
        return bool(self.running or self.waiting)

    def add(
        self,
        seq: Sequence,
        priority: int = 0,
        deadline_s: float | None = None,
        is_continuation: bool = False,
    ) -> None:
        """Queues a sequence; see WaitingQueue for its place, `expire` for `deadline_s`."""
        self.waiting.add(seq, priority, deadline_s, is_continuation)
        self.scoring.add(seq)

    def expire(self) -> list[Sequence]:
        """Removes and returns the sequences that waited longer than their `deadline_s`."""
        expired = self.waiting.expired()
        for seq in expired:
            self.abort(seq)
        return expired

    def schedule(self, may_draft: bool = True) -> list[Chunk]:
        """The chunks of the next step, decodes first; at least one whenever there is work."""
        num_running = len(self.running)
        self._grow_running()
        # After a preemption nothing is admitted: the preempted sequence would take its blocks back.
        decodes, prefills = self._next_chunks(can_admit=len(self.running) == num_running)
        if may_draft and not self._limits.is_reduced:
            num_rows = len(decodes) + sum(chunk.num_known for chunk in prefills)
            decodes = list(self._drafting.extend(decodes, num_rows, self._limits.tokens))
        return [*decodes, *prefills]

    def schedule_behind(self, chunks: Ids[Chunk]) -> list[Chunk]:
        """The step after `chunks`, which is still running. It drafts and preempts nothing.

        [] if none can be known before `chunks` has ended: it verifies drafts, each of its
        sequences may be at its end, or there is no free block for one of them.
        """
        if self._advanced_step is not chunks:
            if any(chunk.draft for chunk in chunks):
                return []
            self._advance(chunks)
        blocks = self.block_manager
        if not all(seq.is_ending or blocks.grow(seq) for seq in blocks.outgrown(self.running)):
            return []
        if self._repeats(chunks):
            return list(chunks)
        decodes, prefills = self._next_chunks(can_admit=True)
        return [*decodes, *prefills]

    def look_ahead(self, chunks: Ids[Chunk]) -> Outlook:
        """What drafts would promise for the next step of some of those that have just ended."""
        seqs = [chunk.seq for chunk in chunks if chunk.is_sampled and not chunk.seq.finish_reason]
        return self._drafting.look_ahead(seqs, len(self.running), self._limits.tokens)

    def update(self, chunks: Ids[Chunk], sampled: Ids[SampledToken]) -> list[Sequence]:
        """Applies a step's sampled tokens, removes finished sequences, and returns those that got
        tokens or ended with their prompts. A sequence that ended while the step ran gets none."""
        end = 0
        advanced: list[Sequence] = []
        has_advanced = self._advanced_step is chunks
        commit, max_model_len = self.block_manager.commit, self._max_model_len
        self._limits.note_fit()
        for chunk in chunks:
            seq, num_known, is_sampled, draft = chunk
            start, end = end, end + is_sampled + len(draft)
            if seq.finish_reason is not None:  # ended while the step ran; its blocks are freed
                continue
            if not has_advanced:
                seq.num_computed += num_known
            if is_sampled:
                if draft:
                    self._accept(chunk, sampled[start:end])
                else:
                    seq.append(sampled[start], max_model_len)
                advanced.append(seq)
            elif seq.end_reason is not None and seq.num_uncomputed == 1:
                seq.finish_reason = seq.end_reason
                advanced.append(seq)
            commit(seq)
            if seq.finish_reason is not None:
                self._remove(seq)
        return advanced

    def roll_back(self, chunks: Ids[Chunk]) -> Sequence | None:
        """After the step `chunks` did not fit into the memory, and one behind it has ended.

        Nothing of both counts, and the next step is smaller: it drafts nothing, and has half the
        tokens or, of decodes, half the sequences; the last in order are preempted for that. The
        sequence of a step that cannot be smaller is returned.
        """
        has_advanced, self._advanced_step = self._advanced_step is chunks, ()
        live = [chunk for chunk in chunks if chunk.seq.finish_reason is None]
        for chunk in live:
            if has_advanced:
                chunk.seq.num_computed -= chunk.num_known
                if chunk.is_sampled:
                    chunk.seq.withdraw()
            self.block_manager.trim(chunk.seq)
        num_tokens = sum(chunk.num_known + len(chunk.draft) for chunk in chunks)
        if not self._limits.shrink(num_tokens, len(chunks)):
            return live[0].seq if live else None
        while len(self.running) > self._limits.seqs:
            self._preempt(self.running.pop())
        return None

    def abort(self, seq: Sequence) -> None:
        """Drops a sequence; its blocks are free for the next step."""
        self.finish(seq, "abort")

    def finish(self, seq: Sequence, reason: FinishReason) -> None:
        """Ends a sequence for a reason other than its tokens."""
        seq.finish_reason = reason
        self._remove(seq)

    def check_integrity(self) -> None:
        """Raises AssertionError when blocks or queues do not match the sequences."""
        self.block_manager.check_integrity(self.running)
        for queue in (self.running, list(self.waiting)):
            assert queue == sorted(queue, key=rank_of), "not in order of rank"
        for seq in self.running:
            table_len, num_hashed = len(seq.block_table), len(seq.block_hashes)
            num_known = seq.num_tokens - seq.is_pending
            assert num_hashed * self.block_manager.block_size <= num_known, "a guess is hashed"
            assert seq.num_uncomputed > 0, f"{seq.request_id} runs with nothing to compute"
            assert table_len >= self.block_manager.num_needed(seq.num_computed)
        for seq in self.waiting:
            assert not seq.block_table, f"{seq.request_id} waits and holds blocks"
            assert seq.num_computed == 0, f"{seq.request_id} waits and has computed tokens"

    def _grow_running(self) -> None:
        """Allocates the blocks that running sequences need; preempts the last in order for it."""
        blocks = self.block_manager
        for seq in blocks.outgrown(self.running):
            while seq.block_table and not blocks.grow(seq):  # without a table it is preempted
                self._preempt(self.running.pop())

    def _preempt(self, seq: Sequence) -> None:
        self.block_manager.release(seq)
        seq.num_preemptions += 1
        self.num_preemptions += 1
        self.waiting.put_back(seq)

    def _advance(self, chunks: Ids[Chunk]) -> None:
        """Brings the sequences of a running step to where they will be when it has ended."""
        self._advanced_step = chunks
        row, max_model_len = 0, self._max_model_len
        num_lasting = 0
        for seq, num_known, is_sampled, _ in chunks:
            if seq.finish_reason is None:
                seq.num_computed += num_known
                if is_sampled:
                    seq.expect(row, max_model_len)
                    num_lasting += num_known == 1 and not seq.is_ending
                elif seq.end_reason is not None:
                    seq.is_ending = seq.num_uncomputed == 1
            row += is_sampled
        self._is_lasting = num_lasting == len(chunks)

    def _repeats(self, chunks: Ids[Chunk]) -> bool:
        """Whether the next step has the same chunks as the last that has advanced."""
        if not self._is_lasting or (self.waiting and len(self.running) < self._limits.seqs):
            return False
        return self.running == [chunk.seq for chunk in chunks]  # one may have ended since

    def _next_chunks(self, can_admit: bool) -> tuple[list[Chunk], list[Chunk]]:
        """The decodes and the prefills of the next step."""
        decodes, prompts = [], []
        for seq in self.running:
            if len(seq.token_ids) - seq.num_computed > 1:
                prompts.append(seq)
            elif not seq.is_ending:
                decodes.append(Chunk(seq, 1, True))
        budget = self._limits.tokens - len(decodes)
        if decodes:
            budget = min(budget, self._max_mixed_prefill_tokens)
        prefills = list(self._prefill(prompts, budget))
        if can_admit:
            budget -= sum(chunk.num_known for chunk in prefills)
            prefills.extend(self._admit_waiting(budget))
        return decodes, prefills

    def _prefill(self, seqs: Ids[Sequence], budget: int) -> Iterable[Chunk]:
        for seq in seqs:
            if budget > 0:
                yield (chunk := Chunk.next_of(seq, budget))
                budget -= chunk.num_known

    def _admit_waiting(self, budget: int) -> Iterable[Chunk]:
        while self.waiting and budget > 0 and len(self.running) < self._limits.seqs:
            seq = self.waiting.head
            if not self.block_manager.admit(seq):
                return
            if seq.num_preemptions == 0:
                seq.num_cached_tokens = min(seq.num_computed, seq.num_prompt_tokens)
            insort(self.running, self.waiting.pop(), key=rank_of)
            yield (chunk := Chunk.next_of(seq, budget))
            budget -= chunk.num_known

    def _accept(self, chunk: Chunk, sampled: Ids[SampledToken]) -> None:
        """Appends the sampled tokens up to the first that differs from the draft.

        Drafted tokens that were sampled are computed already; the rest of the draft is discarded.
        """
        seq, num_before = chunk.seq, chunk.seq.num_computed
        for token, drafted in zip_longest(sampled, chunk.draft):
            seq.append(token, self._max_model_len)
            if seq.finish_reason is not None or not self._is_accepted(drafted, token):
                break
            seq.num_computed += 1
        self.block_manager.trim(seq)
        self.num_drafted += len(chunk.draft)
        self.num_accepted += seq.num_computed - num_before

    def _is_accepted(self, drafted: int | None, sampled: SampledToken) -> bool:
        return drafted == sampled.token_id

    def _remove(self, seq: Sequence) -> None:
        self.scoring.discard(seq)
        if seq.is_pending:
            seq.withdraw()
        if seq.block_table:
            self.running.remove(seq)
            self.block_manager.release(seq)
        else:
            self.waiting.remove(seq)
