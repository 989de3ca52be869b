"""Held text: no part of a phrase is told before the hook has seen all of it."""

import asyncio
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.moderation.held_text import HOLD, PIECE, HeldText


@dataclass(frozen=True)
class Piece:
    text: str


def tell(pieces: list[str], refused: str, num_told: int = 0) -> tuple[str, bool, list[str]]:
    """What is told of `pieces` under a hook that refuses a phrase, whether it did, and what it was
    asked."""
    held: HeldText[Piece] = HeldText(num_told)
    told, asked = "", []

    async def refuses(text: str) -> bool:
        asked.append(text)
        return refused in text

    async def run() -> tuple[str, bool]:
        nonlocal told
        for piece in pieces:
            held.add(Piece(piece))
            released, is_refused = await held.ask_due(refuses)
            told += "".join(p.text for p in released)
            if is_refused:
                return told + held.cut(), True
        if await refuses(held.question):
            return told + held.cut(), True
        return told + "".join(p.text for p in held.release()), False

    return *asyncio.run(run()), asked


TEXTS = st.lists(st.text("ab", max_size=30), max_size=40)


@given(pieces=TEXTS)
def test_all_is_told_in_the_end(pieces: list[str]) -> None:
    told, was_refused, asked = tell(pieces, "c")
    assert (told, was_refused) == ("".join(pieces), False)
    assert max(map(len, asked)) <= PIECE + HOLD


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


@given(text=st.text("abc", max_size=700), data=st.data())
def test_how_a_text_comes_makes_no_difference(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=20)))
    pieces = [text[a:b] for a, b in pairwise([0, *cuts, len(text)])]
    told, was_refused, asked = tell([*text], "cabc")
    assert tell(pieces, "cabc") == (told, was_refused, asked)
    num_told = data.draw(st.integers(0, len(told)))  # before it was resumed
    again = tell([text[num_told:]], "cabc", num_told)
    assert (told[:num_told] + again[0], again[1]) == (told, was_refused)


@pytest.mark.parametrize("size", [1, 7, 500])
def test_text_is_told_soon(size: int) -> None:
    held: HeldText[Piece] = HeldText()
    told = added = 0
    while added < 2000:
        held.add(Piece("a" * size))
        added += size
        while held.is_due:
            told += sum(len(piece.text) for piece in held.approve())
        assert added - told <= HOLD + PIECE + 2 * size
