"""Citations of shown items stay and all others are dropped, however the reply is split."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins_svc.protocol.citations import CitationFilter

PIECES = ["<sup>", "<|", "1", "2", "3", "0", "|>", "</sup>", "<", "s", "<sup><|2|></sup>", "见。"]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=30).map("".join)
CITATION = re.compile("<sup><[|]([0-9]+)[|]></sup>")


def filtered(pieces: list[str], num_items: int) -> str:
    citations = CitationFilter(num_items)
    return "".join([*map(citations.feed, pieces), citations.end()])


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("A<sup><|1|></sup>.", "A<sup><|1|></sup>."),
        ("A<sup><|2|></sup>.", "A<sup><|2|></sup>."),
        ("A<sup><|3|></sup>.", "A."),
        ("A<sup><|0|></sup><sup><|2|></sup>", "A<sup><|2|></sup>"),
        ("A<sup><|01|></sup>.", "A."),
        (f"A<sup><|{'9' * 500}|></sup>.", "A."),
        ("x<sup>2</sup> and <|3|>", "x<sup>2</sup> and <|3|>"),
        ("A<sup><|3|></su", "A<sup><|3|></su"),
        ("A<sup><|", "A<sup><|"),
        ("<sup><sup><|3|></sup></sup>", "<sup></sup>"),
    ],
)
def test_golden(text: str, kept: str) -> None:
    assert filtered([text], 2) == kept
    assert filtered(list(text), 2) == kept


def test_without_results_every_citation_is_dropped() -> None:
    assert filtered(["A<sup><|1|></sup>B"], 0) == "AB"


@given(TEXTS, st.data())
def test_any_split_of_the_text_gives_the_same(text: str, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=8).map(sorted))
    pieces = [text[i:j] for i, j in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert filtered(pieces, 2) == filtered([text], 2)


@given(TEXTS)
def test_only_wrong_citations_are_dropped(text: str) -> None:
    assert filtered([text], 2) == CITATION.sub(
        lambda citation: citation[0] if citation[1] in ("1", "2") else "", text
    )


@given(TEXTS, st.sampled_from(["你", " ", "x"]))
def test_only_a_possible_citation_is_held_back(text: str, end: str) -> None:
    citations = CitationFilter(2)
    sent = citations.feed(text + end)
    assert citations.end() == "" and sent == filtered([text + end], 2)


@pytest.mark.parametrize("held", ["<", "<sup>", "<sup><", "<sup><|1", "<sup><|12|></sup"])
def test_an_incomplete_citation_is_held_until_more_text_comes(held: str) -> None:
    citations = CitationFilter(2)
    assert citations.feed("A" + held) == "A"
    assert citations.feed("!") == held + "!"
