"""Where blocks end: a text that grows has the blocks of the whole text."""

import pytest
from hypothesis import given, settings

from serve_app.rendering.markdown.blocks import cut
from serve_app.rendering.markdown.markup import Markup
from tests.serve_app.rendering.texts import pieces, texts

MARKUP = Markup()


def blocks(text: str, *, is_whole: bool = True) -> list[str]:
    ends = cut(MARKUP.parser, text, is_whole=is_whole)
    return [text[a:b] for a, b in zip([0, *ends], ends, strict=False)]


def streamed(parts: list[str]) -> list[str]:
    """The blocks that are closed one after another as the parts come, and then the rest."""
    closed: list[str] = []
    rest = ""
    for part in parts:
        rest += part
        new = blocks(rest, is_whole=False)
        closed += new
        rest = rest[sum(map(len, new)) :]
    return [*closed, *blocks(rest)]


@given(pieces())
@settings(max_examples=250, deadline=None)
def test_a_text_that_grows_has_the_blocks_of_the_whole_text(parts: list[str]) -> None:
    text = "".join(parts)
    assert streamed(parts) == blocks(text)
    assert streamed([*text]) == blocks(text), "also if every character is a part"


@given(texts)
@settings(max_examples=150, deadline=None)
def test_nothing_is_left_out(text: str) -> None:
    assert "".join(blocks(text)) == (text if blocks(text) else "")
    assert blocks(text) or not text.strip(" \t\r\n")


@given(texts)
@settings(max_examples=150, deadline=None)
def test_the_html_of_the_blocks_is_the_html_of_the_text(text: str) -> None:
    assert "".join(map(MARKUP.html, blocks(text))) == MARKUP.html(text)


@pytest.mark.parametrize(
    ("text", "closed"),
    [
        ("one", 0),
        ("one\n\ntwo", 0),  # "two" may become anything
        ("one\n\ntwo\n", 1),
        ("one\n# two", 0),
        ("one\n# two\n", 1),
        ("- a\n- b\n", 0),
        ("- a\n\ntext\n", 1),
        ("a\n$$\nx\n- y\n", 0),  # a list, unless the formula ends
        ("a\n$$\nx\n- y\n$$\n", 1),
        ("a\n$$\nx\n\n- y\n", 1),  # it has not
        ("a\n\n> $$\n> x\n\nb\n", 2),
        ("a\n\\[\nx\n+ y\n", 0),
        ("```\n# a\n\nb\n", 0),
        ("a\n\n```\nb\n```\n", 1),
        ("a | b\n", 0),
        ("one\n\na | b\n", 1),
    ],
)
def test_how_many_blocks_are_closed(text: str, closed: int) -> None:
    assert len(blocks(text, is_whole=False)) == closed


def test_a_cut_that_forgets_open_formulas_would_be_noticed() -> None:
    """The property does not hold for a plain parse of what has come."""
    parts = ["a\n$$\nx\n- y\n", "- z\n$$\n"]
    assert streamed(parts) == blocks("".join(parts)) == ["a\n", "$$\nx\n- y\n- z\n$$\n"]
    assert blocks(parts[0]) == ["a\n$$\nx\n", "- y\n"]
