"""Log probabilities in the form of OpenAI's chat completions: tokens as text and as bytes.

A token may be part of a character: then its text has U+FFFD, and only its bytes tell it.
"""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from moss_tp.sampling.row import SampledToken
from serve_app.api.tokens import TextTokenizer

# Instead of minus infinity, which JSON has not; as vLLM and OpenAI do.
MIN_LOGPROB = -9999.0


class TopLogprob(BaseModel):
    """A token that could have been sampled."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob):
    """A sampled token and the most probable ones in its place."""

    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(BaseModel):
    """Of the tokens of a reply, as they were sampled."""

    content: list[TokenLogprob] | None
    refusal: None


def logprobs_json(tokens: Sequence[SampledToken], tokenizer: TextTokenizer) -> list[dict[str, Any]]:
    """The `content` of a choice's logprobs for `tokens`."""
    return [
        {
            **_entry(token.token_id, token.logprob, tokenizer),
            "top_logprobs": [_entry(i, value, tokenizer) for i, value in token.top_logprobs],
        }
        for token in tokens
    ]


def _entry(token_id: int, logprob: float | None, tokenizer: TextTokenizer) -> dict[str, Any]:
    text = tokenizer.decode([token_id], skip_special=False)
    data = tokenizer.decode_bytes([token_id]) or text.encode()
    value = MIN_LOGPROB if logprob is None else max(logprob, MIN_LOGPROB)
    return {"token": text, "logprob": value, "bytes": list(data)}
