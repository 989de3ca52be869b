"""No text becomes anything that runs, loads or leads elsewhere by another scheme than http."""

from html import unescape

import pytest
from hypothesis import given, settings
from markdown_it import MarkdownIt

from serve_app.rendering.escaped import escaped
from serve_app.rendering.markdown.cleaning import clean
from serve_app.rendering.markdown.markup import Markup
from tests.serve_app.rendering.markdown.attacks import HTML, attacks
from tests.serve_app.rendering.markdown.checked import objections
from tests.serve_app.rendering.texts import texts

ATTACKS = [*dict.fromkeys(attacks())]
MARKUP = Markup()


def test_attacks_become_nothing() -> None:
    assert len(ATTACKS) > 500
    found = {text: wrong for text in ATTACKS if (wrong := objections(MARKUP.html(text)))}
    assert not found


def test_nor_do_their_beginnings() -> None:
    """A stream shows every prefix."""
    for text in ATTACKS[::7]:
        for end in range(0, len(text), 3):
            assert not objections(MARKUP.html(text[:end])), text[:end]


def test_nor_as_escaped_text() -> None:
    assert not {text for text in ATTACKS if objections(escaped(text))}


def test_the_cleaner_alone_would_be_enough() -> None:
    """The second wall, behind a renderer that lets HTML and every link through."""
    careless = MarkdownIt("commonmark", {"html": True}).enable("table")
    careless.validateLink = lambda url: True  # type: ignore[method-assign]
    open_ones = [text for text in ATTACKS if objections(careless.render(text))]
    assert len(open_ones) > len(ATTACKS) / 4, "the check sees what a careless renderer does"
    assert not {text for text in ATTACKS if objections(clean(careless.render(text)))}


@given(texts)
@settings(max_examples=200, deadline=None)
def test_no_mixture_becomes_anything(text: str) -> None:
    assert not objections(MARKUP.html(text))


@pytest.mark.parametrize(
    "html",
    [
        "<p onclick=x>",
        "<img>",
        "<a href='javascript:1' rel='noopener noreferrer nofollow' target=_blank>x</a>",
        "<a href='https://e.org'>x</a>",
        "<a href='/x' rel='noopener noreferrer nofollow' target=_blank>x</a>",
        "<math href=x>",
        "<span style=x>",
        "<p class=x>",
        "<div class='code evil'>",
        "<svg></svg>",
        "<script></script>",
    ],
)
def test_the_check_sees_what_is_wrong(html: str) -> None:
    assert objections(html)


@pytest.mark.parametrize("html", HTML)
def test_attacks_are_shown_as_text(html: str) -> None:
    """What was written is what is seen, not a cleaned rest of it."""
    shown = MARKUP.html(f"`{html}`")
    assert html.replace("\0", "\ufffd") in unescape(unescape(shown)) or "&" in html
