"""How much of a chat goes into a prompt: the newest whole turns that leave room for a reply."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from moss_tp.errors import ContextLengthError
from serve_app.sessions.session import Turn

MIN_REPLY_TOKENS = 16
# Older turns make room for this much of thoughts, results and reply together.
COMFORTABLE_ROOM = 512


@dataclass(frozen=True)
class Prompt:
    """The first pass's prompt. `dropped_turns` of the oldest turns did not fit."""

    token_ids: list[int]
    dropped_turns: int


def fit_prompt(
    head: list[int],
    turns: Sequence[Turn],
    encode_turn: Callable[[Turn], list[int]],
    tail: list[int],
    *,
    min_room: int,
    max_length: int,
) -> Prompt:
    """`head`, as many of the newest turns as leave comfortable room in `max_length`, `tail`.

    Raises ContextLengthError when even without history there is not `min_room` behind them.
    """
    if (num_ids := len(head) + len(tail)) + min_room > max_length:
        raise ContextLengthError(
            f"the prompt has {num_ids} tokens and needs {min_room} more for a reply,"
            f" but prompt and reply together may have {max_length}"
        )
    room = max_length - num_ids - min(COMFORTABLE_ROOM, max_length // 4)
    history: list[list[int]] = []
    for turn in reversed(turns):
        ids = encode_turn(turn)
        if (room := room - len(ids)) < 0:
            break
        history.append(ids)
    middle = [token_id for ids in reversed(history) for token_id in ids]
    return Prompt(head + middle + tail, len(turns) - len(history))
