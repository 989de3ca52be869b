"""A fake executor with a paged cache, for tests of the scheduler's block accounting.

It writes each token into the slot given by the block table and reads a sequence's whole history
back from there. The next token is a digest of that history, so a wrong cache hit,
a block overwritten while in use or a shifted position changes the reply.
"""

from collections.abc import Callable, Sequence
from hashlib import sha256

import numpy as np

from moss_tp.engine.llm_engine import LLMEngine, ModelIds
from moss_tp.engine.running.step import Step
from moss_tp.engine.running.steps import LazyStep
from moss_tp.engine.scheduling.batch import Batch, Ints
from moss_tp.engine_config import EngineConfig
from moss_tp.sampling.row import SampledToken, SamplingRow

VOCAB_SIZE = 97
EOS_ID = 96


Model = Callable[[Sequence[int]], int]  # history -> next token


def next_token(history: Sequence[int]) -> int:
    return int.from_bytes(sha256(str(list(history)).encode()).digest()[:4]) % VOCAB_SIZE


def copying_token(history: Sequence[int]) -> int:
    """A model that mostly repeats the token three positions back, so that drafts are accepted."""
    digest = next_token(history)
    return history[-3] if len(history) > 2 and digest % 5 else digest % 3


def expected_reply(
    prompt: Sequence[int],
    max_tokens: int,
    stop_ids: frozenset[int],
    max_model_len: int,
    model: Model = next_token,
) -> list[int]:
    """The fake's reply, computed without blocks."""
    ids = list(prompt)
    while len(ids) - len(prompt) < max_tokens and len(ids) < max_model_len:
        ids.append(model(ids))
        if ids[-1] in stop_ids:
            break
    return ids[len(prompt) :]


def score_of(history: Sequence[int], token_id: int) -> SampledToken:
    """The fake's log probability of `token_id` after `history`, and two that are better."""
    digest = next_token([*history, token_id])
    return SampledToken(token_id, -float(digest), ((digest, -0.5), (digest + 1, -1.5)))


def expected_scores(prompt: Sequence[int], count: int) -> list[SampledToken]:
    """What is told of a prompt with that many of the best."""
    scores = [score_of(prompt[:i], prompt[i]) for i in range(1, len(prompt))]
    return [SampledToken(one.token_id, one.logprob, one.top_logprobs[:count]) for one in scores]


class PagedFake:
    """Satisfies `Executor`. It records the sampling `rows` and ignores them."""

    max_in_flight = 1

    def __init__(self, num_blocks: int, block_size: int, model: Model = next_token) -> None:
        self._model = model
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.forward_s = 0.0
        self.late_step: str | None = None
        self.is_closed = False
        self.batches: list[Batch] = []
        self.rows: list[Sequence[SamplingRow]] = []
        self.on_death: Callable[[str], None] | None = None
        self._slots: dict[tuple[int, int], tuple[int, int]] = {}

    def submit(self, batch: Batch, rows: Sequence[SamplingRow] = ()) -> Step:
        return LazyStep(lambda: self.execute(batch, rows))

    def execute(self, batch: Batch, rows: Sequence[SamplingRow] = ()) -> list[SampledToken]:
        batch = Batch(batch.ints.copy())
        self.batches.append(batch)
        self.rows.append(rows)
        histories: list[list[int]] = []
        tables = np.split(batch.block_tables, np.cumsum(batch.table_lens)[:-1])
        starts, contexts = batch.query_starts.tolist(), batch.context_lens.tolist()
        for i, (table, context) in enumerate(zip(tables, contexts, strict=True)):
            tokens = batch.token_ids[starts[i] : starts[i + 1]].tolist()
            for position, token in enumerate(tokens, context - len(tokens)):
                self._slots[self._slot(table, position)] = (position, token)
            for length in range(context - int(batch.num_logits[i]), context):
                histories.append(self._history(table, length + 1))
        tokens = self._sample(histories, rows)
        for row, target in zip(batch.scored_rows.tolist(), batch.targets.tolist(), strict=True):
            chunk = int(np.searchsorted(batch.query_starts, row, side="right")) - 1
            before = self._history(tables[chunk], int(batch.positions[row]) + 1)
            tokens.append(score_of(before, target))
        return tokens

    def watch(self, on_death: Callable[[str], None]) -> None:
        self.on_death = on_death

    def close(self) -> None:
        self.is_closed = True

    def _sample(
        self, histories: Sequence[Sequence[int]], rows: Sequence[SamplingRow]
    ) -> list[SampledToken]:
        return [SampledToken(self._model(history)) for history in histories]

    def _slot(self, table: Ints, position: int) -> tuple[int, int]:
        block = int(table[position // self.block_size])
        assert 0 <= block < self.num_blocks
        return block, position % self.block_size

    def _history(self, table: Ints, context: int) -> list[int]:
        history = []
        for expected in range(context):
            position, token = self._slots[self._slot(table, expected)]
            assert position == expected
            history.append(token)
        return history


FAKE_IDS = ModelIds(VOCAB_SIZE, (EOS_ID,))


class FakeTokenizer:
    """Id n is the byte n + 33, and eos a special token without text."""

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        return bytes(token_id + 33 for token_id in ids if token_id != EOS_ID)


def fake_engine(executor: PagedFake | None = None, **changes: object) -> LLMEngine:
    """An engine of 32-token contexts over 8 blocks more than one sequence needs."""
    config = fake_config(**changes)
    executor = executor or PagedFake(num_blocks=16, block_size=config.block_size)
    return LLMEngine(config, executor, FakeTokenizer(), FAKE_IDS)


def fake_config(**changes: object) -> EngineConfig:
    values: dict[str, object] = {"model": "none", "max_model_len": 32, "block_size": 4}
    return EngineConfig(**{**values, **changes})  # type: ignore[arg-type]
