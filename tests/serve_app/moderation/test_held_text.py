"""Held text: no part of a phrase is told before the hook has seen all of it."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.moderation.held_text import HOLD, PIECE, HeldText


@dataclass(frozen=True)
class Piece:
    text: str


def tell(pieces: list[str], refused: str) -> tuple[str, bool, int]:
    """What is told of `pieces` under a hook that refuses a phrase, whether it did, and how much
    text it was shown at most."""
    held: HeldText[Piece] = HeldText()
    told, longest = "", 0
    for number, piece in enumerate([*pieces, None]):
        if piece is not None:
            held.add(Piece(piece))
        if not held.is_due and number < len(pieces):
            continue
        longest = max(longest, len(held.text))
        if refused in held.text:
            return told, True, longest
        told += "".join(p.text for p in held.release(0 if number == len(pieces) else HOLD))
        assert held.num_told == len(told)
    return told, False, longest


TEXTS = st.lists(st.text("ab", max_size=30), max_size=40)


@given(pieces=TEXTS)
def test_all_is_told_in_the_end(pieces: list[str]) -> None:
    told, was_refused, longest = tell(pieces, "c")
    assert (told, was_refused) == ("".join(pieces), False)
    assert longest < PIECE + HOLD + 2 * 30


@given(
    before=TEXTS,
    phrase=st.lists(st.text("cd", min_size=1, max_size=8), min_size=1, max_size=HOLD // 8),
    after=TEXTS,
)
def test_nothing_of_a_refused_phrase_is_told(
    before: list[str], phrase: list[str], after: list[str]
) -> None:
    told, was_refused, _ = tell([*before, *phrase, *after], "".join(phrase))
    assert was_refused
    assert "".join(before).startswith(told)


def test_a_longer_phrase_may_be_told_in_part() -> None:
    """So the bound is what it says, and not more."""
    phrase = "c" * 2 * (HOLD + PIECE)
    told, was_refused, _ = tell(["a" * PIECE, *phrase], phrase)
    assert "c" in told and not was_refused


@pytest.mark.parametrize("size", [1, 7, 500])
def test_text_is_told_soon(size: int) -> None:
    held: HeldText[Piece] = HeldText()
    told = added = 0
    while added < 2000:
        held.add(Piece("a" * size))
        added += size
        if held.is_due:
            told += sum(len(piece.text) for piece in held.release())
        assert added - told <= HOLD + PIECE + 2 * size
