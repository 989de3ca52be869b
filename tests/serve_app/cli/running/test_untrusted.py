"""No text of a model or a plugin can do more to a terminal than be read."""

import io
import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from serve_app.cli.running.rich_screen import RichScreen
from serve_app.cli.running.untrusted import one_line, printable

ATTACKS = (
    "\x1b[2J\x1b[H",  # clears the screen
    "\x1b]0;title\x07",
    "\x1b]52;c;cm0gLXJmIC8=\x07",  # writes the clipboard
    "\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "\x1bP+q544e\x1b\\",  # asks the terminal, which answers as if it were typed
    "\x1b[6n",
    "\x9b31m",
    "\x9d0;t\x9c",
    "\x1b[?1049h",
    "\r\x1b[K$ rm -rf /",
    "\x08\x08\x08",
    "\x0e\x07",
    "\u202egnp.exe",
    "\u2066\u2069",
)
HARMFUL = st.text(st.sampled_from("\x1b[]?;0123456789mHJ\\\x07\x9b\x9d\x9c\r\n\tab你\u202e"))
# What rich writes by itself, where it has no colours: it moves up and clears its own lines.
_RICHS = re.compile(r"\x1b\[(?:2K|1A|0m|1m|2m|\?25[lh]|[0-9;]*m)|\r")


def is_harmless(text: str) -> bool:
    return not any(
        (unicodedata.category(c) == "Cc" and c not in "\n\t") or c in "\u202e\u2066" for c in text
    )


@pytest.mark.parametrize("attack", ATTACKS)
def test_known_attacks_are_harmless(attack: str) -> None:
    assert not is_harmless(attack), "the check knows an attack"
    assert is_harmless(printable(f"before{attack}after"))
    assert printable(f"before{attack}").startswith("before")


@given(st.text() | HARMFUL)
@example("\x1b\x1b[31m[31m")  # what is left is a sequence again, but for its ESC
def test_any_text_is_harmless_and_stays_itself_then(text: str) -> None:
    shown = printable(text)
    assert is_harmless(shown)
    assert printable(shown) == shown
    assert "\n" not in one_line(text)


@given(st.text(st.characters(exclude_categories=["Cc", "Cf"])))
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_sequences_go_whole() -> None:
    assert printable("a\x1b[1;31mb\x1b[0mc\x1b]0;title\x07d\x9b2Je") == "abcde"


@given(st.lists(HARMFUL, max_size=5))
@example(["&#27;[2J &#x1b;[31m &#155;31m"])
@example(["[x](http://a.example/\x1b]0;t\x07)"])
def test_a_rich_screen_passes_none_on(pieces: list[str]) -> None:
    """Wherever pieces are cut, and whatever markdown makes of them."""
    out = io.StringIO()
    screen = RichScreen(Console(file=out, force_terminal=True, color_system=None, width=60))
    screen.begin()
    for piece in pieces:
        screen.text(piece)
        screen.aside(piece)
        screen.status(piece)
        screen.note(piece)
    screen.end(" (stopped)")
    screen.fail("".join(pieces))
    assert is_harmless(_RICHS.sub("", out.getvalue()))
