"""A test double of a model: what it writes is a hash of its prompt's ids and its seed.

So two replies are equal only if all that they were made from is, and a reply that anyone goes on
with is equal to one that nobody disturbed. It has no weights.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from functools import cache

from moss_tp.dialogue import END_TOKENS, encode_opening
from moss_tp.engine.outputs import FinishReason, TokenDelta
from moss_tp.engine.request import EngineRequest
from moss_tp.tokenizer import Tokenizer
from serve_app.demo.bundled import BUNDLED_MODEL

NUM_WORDS = 10


@cache
def digest_tokenizer() -> Tokenizer:
    return Tokenizer.from_dir(BUNDLED_MODEL)


def _digest(prompt_ids: Sequence[int], seed: int | None) -> str:
    return hashlib.sha256(f"{list(prompt_ids)}/{seed}".encode()).hexdigest()


def _thoughts(digest: str) -> tuple[str, str]:
    """The thoughts and the Commands: always a pure call, and mostly one with effects."""
    calls = [f'Calculate("{digest[:8]}")']
    if digest[0] < "c":
        calls.append(f'Text2Image("{digest[8:24]}")')
    return f" {digest[24:32]}", f"\n<|Commands|>: {', '.join(calls)}"


def _words(digest: str, num_words: int) -> str:
    """The digest, and digests of digests behind it."""
    text = digest
    while len(text) < 4 * num_words:
        text += hashlib.sha256(text.encode()).hexdigest()
    return "".join(f" {text[i : i + 4]}" for i in range(0, 4 * num_words, 4))


@dataclass(frozen=True)
class DigestModel:
    """A ChatModel. It takes `pause_s` for each token, and replies in `num_words`."""

    pause_s: float = 0.0
    num_words: int = NUM_WORDS

    def reply_ids(self, request: EngineRequest) -> list[int]:
        """All ids that it writes for `request`."""
        tokenizer = digest_tokenizer()
        prompt_ids = list(request.prompt_ids)
        digest = _digest(prompt_ids, request.params.seed)
        opening = encode_opening(tokenizer, "moss")
        if prompt_ids[-len(opening) :] == opening:
            return [
                *tokenizer.encode(_words(digest, self.num_words)),
                tokenizer.special_id(END_TOKENS["moss"]),
            ]
        thoughts, commands = _thoughts(digest)
        return [
            *tokenizer.encode(thoughts),
            tokenizer.special_id(END_TOKENS["thoughts"]),
            *tokenizer.encode(commands),
            tokenizer.special_id(END_TOKENS["commands"]),
        ]

    async def generate(
        self, request: EngineRequest, session_id: str = ""
    ) -> AsyncGenerator[TokenDelta]:
        """The deltas of one request, which goes on after its `output_ids`."""
        params, told = request.params, list(request.output_ids)
        ids = self.reply_ids(request)[: params.max_tokens]
        if ids[: len(told)] != told:
            raise AssertionError("another reply was told")
        if told and len(told) == len(ids):
            yield self._delta(
                request, (), "stop" if told[-1] in params.stop_token_ids else "length"
            )
        for number in range(len(told), len(ids)):
            await asyncio.sleep(self.pause_s)
            is_last = number + 1 == len(ids)
            ended: FinishReason = "stop" if ids[number] in params.stop_token_ids else "length"
            yield self._delta(request, (ids[number],), ended if is_last else None)

    def _delta(
        self, request: EngineRequest, ids: tuple[int, ...], reason: FinishReason | None
    ) -> TokenDelta:
        text = digest_tokenizer().decode(ids) if ids else ""
        return TokenDelta(
            ids,
            text,
            reason,
            len(request.prompt_ids),
            0,
            num_told_tokens=len(request.output_ids),
        )
