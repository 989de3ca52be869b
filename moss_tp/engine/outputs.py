"""What the engine gives back: deltas while a request runs, one RequestOutput at its end."""

from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length", "abort"]


@dataclass(frozen=True)
class TokenDelta:
    """New tokens of one request, with the text that became complete with them.

    `text` never splits a UTF-8 character and never shows a special token; it may be empty.
    `finish_reason` is set on the last delta only.
    """

    token_ids: tuple[int, ...]
    text: str
    finish_reason: FinishReason | None
    num_prompt_tokens: int
    num_cached_tokens: int


@dataclass(frozen=True)
class RequestOutput:
    """A finished request. `token_ids` holds the stop id that ended it, `text` does not."""

    request_id: str
    token_ids: list[int]
    text: str
    finish_reason: FinishReason
    num_prompt_tokens: int
    num_cached_tokens: int
