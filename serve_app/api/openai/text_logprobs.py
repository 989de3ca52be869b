"""Log probabilities in the form of OpenAI's completions: lists side by side, tokens as text.

A token that is no whole character is `bytes:\\xe4\\xbd`, as OpenAI writes it. `text_offset` counts
characters from the beginning of the choice's text.
"""

import codecs
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from moss_tp.sampling.row import SampledToken
from serve_app.api.openai.logprobs import MIN_LOGPROB
from serve_app.api.tokens import TextTokenizer


class TextLogprobs(BaseModel):
    """Of the tokens of a text. The first token of a prompt follows nothing, and has null."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class TextScorer:
    """The state of one choice, whose tokens come piece by piece."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._num_chars = 0

    def prompt(self, ids: Sequence[int], scores: Sequence[SampledToken]) -> dict[str, Any]:
        """Of all `ids` of an echoed prompt; `scores` are those of all but the first."""
        first = _lists([self._tokenizer_text(ids[0])], [None], [None], [0])
        self._pass(self._shown(ids[0]))
        rest = self._score(scores, shows_specials=True)
        self._num_chars += len(self._decoder.decode(b"", final=True))
        self._decoder.reset()
        return join_logprobs([first, rest])

    def reply(self, tokens: Sequence[SampledToken]) -> dict[str, Any]:
        """Of the next tokens of the reply, whose text has no special token."""
        return self._score(tokens, shows_specials=False)

    def _score(self, tokens: Sequence[SampledToken], shows_specials: bool) -> dict[str, Any]:
        offsets = []
        for token in tokens:
            offsets.append(self._num_chars)
            data = self._tokenizer.decode_bytes([token.token_id])
            self._pass(self._shown(token.token_id) if shows_specials else data)
        return _lists(
            [self._tokenizer_text(token.token_id) for token in tokens],
            [_value(token.logprob) for token in tokens],
            [self._top(token) for token in tokens],
            offsets,
        )

    def _top(self, token: SampledToken) -> dict[str, float]:
        """The most probable tokens, and this one. Of several with one text the best counts."""
        top: dict[str, float] = {}
        for token_id, logprob in (*token.top_logprobs, (token.token_id, token.logprob)):
            value = _value(logprob)
            text = self._tokenizer_text(token_id)
            top[text] = max(value, top.get(text, value))
        return top

    def _pass(self, data: bytes) -> None:
        self._num_chars += len(self._decoder.decode(data))

    def _shown(self, token_id: int) -> bytes:
        data = self._tokenizer.decode_bytes([token_id])
        return data or self._tokenizer.decode([token_id], skip_special=False).encode()

    def _tokenizer_text(self, token_id: int) -> str:
        try:
            return self._shown(token_id).decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in self._shown(token_id))


def join_logprobs(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The lists of all parts, one after the other."""
    names = TextLogprobs.model_fields
    return {name: [value for part in parts for value in part[name]] for name in names}


def _lists(
    tokens: list[str],
    logprobs: Sequence[float | None],
    top: Sequence[dict[str, float] | None],
    offsets: list[int],
) -> dict[str, Any]:
    return {
        "tokens": tokens,
        "token_logprobs": list(logprobs),
        "top_logprobs": list(top),
        "text_offset": offsets,
    }


def _value(logprob: float | None) -> float:
    return MIN_LOGPROB if logprob is None else max(logprob, MIN_LOGPROB)
