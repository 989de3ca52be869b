"""Fits a history into the context: the newest whole exchanges that leave room for a reply."""

import hashlib
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from moss_tp.errors import ContextLengthError
from serve_app.prompt.exchange import Exchange

MIN_REPLY_TOKENS = 16
# Older exchanges are dropped until thoughts, results and reply together have this much room.
COMFORTABLE_ROOM = 512
MAX_OWN_SHARE = 4  # a quarter: for a client's own instructions


@dataclass(frozen=True)
class Prompt:
    """The prompt of a turn's first pass.

    `dropped_turns` of the oldest exchanges did not fit. The first `num_shared_tokens` ids are
    the meta instruction and capability lines, which are the same for every owner; a client's own
    instructions follow them.
    """

    token_ids: list[int]
    dropped_turns: int
    num_shared_tokens: int

    @property
    def digest(self) -> str:
        """Tells prompts apart by their ids."""
        return hashlib.sha256(array("q", self.token_ids).tobytes()).hexdigest()


def fit_prompt(
    head: list[int],
    own: list[int],
    history: Sequence[Exchange],
    encode_exchange: Callable[[Exchange], list[int]],
    tail: list[int],
    *,
    min_room: int,
    max_length: int,
) -> Prompt:
    """`head`, `own`, then as many of the newest exchanges as leave comfortable room, then `tail`.

    `head` holds the instruction that all owners share, `own` what one adds to it. Raises
    ContextLengthError if `own` takes more than a quarter of the `max_length` tokens, or if fewer
    than `min_room` remain even without history.
    """
    if len(own) > max_length // MAX_OWN_SHARE:
        raise ContextLengthError(
            f"system messages and tools have {len(own)} tokens, but may have"
            f" {max_length // MAX_OWN_SHARE}: a quarter of the context"
        )
    if (num_ids := len(head) + len(own) + len(tail)) + min_room > max_length:
        raise ContextLengthError(
            f"the prompt has {num_ids} tokens and needs {min_room} more for a reply,"
            f" but prompt and reply together may have {max_length}"
        )
    room = max_length - num_ids - min(COMFORTABLE_ROOM, max_length // 4)
    kept: list[list[int]] = []
    for exchange in reversed(history):
        ids = encode_exchange(exchange)
        if (room := room - len(ids)) < 0:
            break
        kept.append(ids)
    middle = [token_id for ids in reversed(kept) for token_id in ids]
    return Prompt(head + own + middle + tail, len(history) - len(kept), len(head))
