"""A scheduler and a fake model, stepped together and checked after each step."""

from moss_tp.engine.scheduling.batch import Batch
from moss_tp.engine.scheduling.scheduler import Scheduler
from moss_tp.engine.scheduling.sequence import Sequence
from moss_tp.sampling_params import SamplingParams
from tests.moss_tp.engine.scheduling.paged_fake import (
    EOS_ID,
    Model,
    PagedFake,
    expected_reply,
    fake_config,
    next_token,
)

MAX_MODEL_LEN = 32


class Run:
    """Each step advances the clock by a second."""

    def __init__(
        self,
        block_size: int,
        num_spare_blocks: int,
        max_seqs: int,
        max_tokens: int,
        model: Model = next_token,
        scheduler: type[Scheduler] = Scheduler,
        **changes: object,
    ) -> None:
        self.model = model
        self.config = fake_config(
            max_model_len=MAX_MODEL_LEN,
            block_size=block_size,
            max_num_seqs=max_seqs,
            max_num_batched_tokens=max(max_tokens, max_seqs),
            **changes,
        )
        num_blocks = -(-MAX_MODEL_LEN // block_size) + num_spare_blocks
        self.now = 0
        self.scheduler = scheduler(self.config, num_blocks, clock=lambda: self.now)
        self.executor = PagedFake(num_blocks, block_size, model)
        self.arrivals: list[Sequence] = []

    def add(
        self,
        prompt: list[int],
        max_tokens: int,
        salt: str = "",
        priority: int = 0,
        deadline_s: float | None = None,
        is_continuation: bool = False,
        stop_ids: frozenset[int] = frozenset([EOS_ID]),
    ) -> Sequence:
        params = SamplingParams(max_tokens=max_tokens)
        name = str(len(self.arrivals))
        seq = Sequence(name, list(prompt), params, stop_ids, salt)
        self.arrivals.append(seq)
        self.scheduler.add(seq, priority, deadline_s, is_continuation)
        return seq

    def step(self) -> list[Sequence]:
        self.now += 1
        self.scheduler.expire()
        decoding = [seq for seq in self.scheduler.running if seq.num_uncomputed == 1]
        chunks = self.scheduler.schedule()
        assert bool(chunks) == self.scheduler.has_work
        assert len(chunks) <= self.config.max_num_seqs
        assert (
            sum(chunk.num_known + len(chunk.draft) for chunk in chunks)
            <= self.config.max_num_batched_tokens
        )
        scheduled = {chunk.seq for chunk in chunks}
        assert all(seq in scheduled for seq in decoding if seq.block_table), "a decode stalled"
        self.scheduler.check_integrity()
        advanced: list[Sequence] = []
        if chunks:
            sampled = self.executor.execute(Batch.of(chunks, self.config.block_size))
            advanced = self.scheduler.update(chunks, sampled)
        self.scheduler.check_integrity()
        needed = self.scheduler.block_manager.num_needed
        for seq in self.scheduler.running:
            assert len(seq.block_table) <= needed(seq.num_tokens), (
                "blocks of rejected drafts are kept"
            )
        return advanced

    def finish(self) -> None:
        while self.scheduler.has_work:
            self.step()

    def check_reply(self, seq: Sequence) -> None:
        prompt, reply = (
            seq.token_ids[: seq.num_prompt_tokens],
            seq.token_ids[seq.num_prompt_tokens :],
        )
        expected = expected_reply(
            prompt, seq.params.max_tokens, seq.stop_ids, MAX_MODEL_LEN, self.model
        )
        if seq.finish_reason == "abort":
            assert reply == expected[: len(reply)]
        else:
            assert reply == expected
            assert seq.finish_reason == ("stop" if reply[-1] in seq.stop_ids else "length")
