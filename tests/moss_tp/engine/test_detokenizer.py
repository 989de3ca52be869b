"""Pieces hold whole characters and concatenate to the text."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from moss_tp.engine.detokenizer import Detokenizer

SPECIAL = 256


class Bytes:
    """One id per byte, the hardest case for characters of several bytes."""

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        return bytes(token_id for token_id in ids if token_id != SPECIAL)


@given(st.text(), st.integers(1, 4))
def test_no_character_is_split(text: str, step: int) -> None:
    ids = list(text.encode("utf-8", errors="ignore"))
    detokenizer = Detokenizer(Bytes())
    pieces = [detokenizer.push(ids[i : i + step]) for i in range(0, len(ids), step)]
    pieces.append(detokenizer.push([], is_last=True))
    assert "".join(pieces) == bytes(ids).decode()
    assert pieces[-1] == ""


def test_a_character_comes_with_its_last_byte() -> None:
    detokenizer = Detokenizer(Bytes())
    first, second, third = "你".encode()
    assert [detokenizer.push([b]) for b in (first, second, third)] == ["", "", "你"]


def test_a_special_token_has_no_text() -> None:
    assert Detokenizer(Bytes()).push([72, SPECIAL, 105], is_last=True) == "Hi"


def test_an_incomplete_character_at_the_end_is_replaced() -> None:
    detokenizer = Detokenizer(Bytes())
    assert detokenizer.push("你".encode()[:2]) == ""
    assert detokenizer.push([], is_last=True) == "\ufffd"
