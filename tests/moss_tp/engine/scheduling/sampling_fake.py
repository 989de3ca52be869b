"""A fake engine whose tokens are really sampled, and whose tokens split characters.

The logits are a digest of the history in the paged cache; the project's sampler draws from them,
with penalties, biases and logprobs. Each row is sampled alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np
import torch

from moss_tp.engine.llm_engine import LLMEngine
from moss_tp.engine.outputs import FinishReason, TokenDelta
from moss_tp.engine.request import EngineRequest
from moss_tp.sampling.row import SampledToken, SamplingRow
from moss_tp.sampling.sampler import Sampler
from tests.moss_tp.engine.scheduling.paged_fake import (
    EOS_ID,
    FAKE_IDS,
    VOCAB_SIZE,
    PagedFake,
    fake_config,
)

# Text, whole characters, and parts of them; every id has one of these.
PIECES = (b"a", b"b", b"ab", "你".encode(), b"\xe4", b"\xbd\xa0", "b你".encode()[:2], b"\xbd", b"")


class SamplingFake(PagedFake):
    """Samples as the rows say."""

    def _sample(
        self, histories: Sequence[Sequence[int]], rows: Sequence[SamplingRow]
    ) -> list[SampledToken]:
        sampler = Sampler()
        return [
            sampler.sample(logits_of(history), [row])[0]
            for history, row in zip(histories, rows, strict=True)
        ]


def logits_of(history: Sequence[int]) -> torch.Tensor:
    """`(1, VOCAB_SIZE)`. The token three positions back is likely, so that drafts are accepted."""
    digest = sha256(str(list(history)).encode()).digest()
    logits = 2 * np.random.default_rng(list(digest)).standard_normal(VOCAB_SIZE, np.float32)
    if len(history) > 2:
        logits[history[-3]] += 4
    return torch.from_numpy(logits)[None]


class PiecesTokenizer:
    """Satisfies `ByteDecoder`."""

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        return b"".join(PIECES[i % len(PIECES)] for i in ids if i != EOS_ID)


def sampling_engine(
    num_blocks: int = 24, executor: type[SamplingFake] = SamplingFake, **changes: object
) -> LLMEngine:
    config = fake_config(**changes)
    started = executor(num_blocks, config.block_size)
    return LLMEngine(config, started, PiecesTokenizer(), FAKE_IDS)


@dataclass
class Told:
    """What a reader of a reply's deltas knows."""

    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    logprobs: list[SampledToken] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    prompt_logprobs: list[SampledToken] | None = None
    usage: tuple[int, int] = (0, 0)  # prompt and reply tokens
    texts: list[str] = field(default_factory=list)  # after each delta

    def add(self, delta: TokenDelta) -> None:
        assert self.finish_reason is None
        if delta.prompt_logprobs is not None:
            assert not self.texts, "they come first, and once"
            self.prompt_logprobs = list(delta.prompt_logprobs)
        self.token_ids += delta.token_ids
        self.text += delta.text
        self.logprobs += delta.logprobs
        self.finish_reason = delta.finish_reason
        self.usage = (delta.num_prompt_tokens, delta.num_told_tokens + len(self.token_ids))
        self.texts.append(self.text)


def told_by(engine: LLMEngine, *requests: EngineRequest) -> list[Told]:
    """Runs requests side by side to their ends."""
    told = {request.request_id: Told() for request in requests}
    for request in requests:
        engine.add_request(request)
    while engine.has_work:
        for request_id, delta in engine.step():
            told[request_id].add(delta)
        engine.check_integrity()
    return list(told.values())
