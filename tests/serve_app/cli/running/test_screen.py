"""Screens: plain text in its pieces, and markdown whose blocks are printed once."""

import io
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from serve_app.cli.running.rich_screen import RichScreen, Tail, split_blocks
from serve_app.cli.running.screen import MOSS, PlainScreen

CHAT = """Hello *there*.
A second line with List<int>.

```python
def f(x):

    return x
```

- one

- two

| a | b |
|---|---|
| 1 | 2 |

See [here](http://a.example).<sup><|2|></sup>"""


def shown(*pieces: str, remark: str = "", height: int = 200, is_terminal: bool = False) -> str:
    """What a rich screen leaves of a reply that comes in pieces."""
    out = io.StringIO()
    console = Console(
        file=out, force_terminal=is_terminal, width=60, height=height, color_system=None
    )
    screen = RichScreen(console)
    screen.begin()
    for piece in pieces:
        screen.text(piece)
    screen.end(remark)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def test_markdown_is_rendered_and_nothing_of_it_is_lost() -> None:
    text = shown(CHAT)
    assert "*" not in text and "```" not in text
    for part in ("Hello there.\nA second line with List<int>.", "return x", "• one", "• two"):
        assert part in text
    assert "here (http://a.example).[2]" in text


@given(st.lists(st.integers(0, len(CHAT)), max_size=12))
def test_pieces_are_shown_as_the_whole(cuts: list[int]) -> None:
    text = CHAT.partition("<sup>")[0]  # the server tells a citation whole
    places = [0, *sorted(cuts), len(text)]
    assert shown(*(text[start:end] for start, end in pairwise(places))) == shown(text)


def test_a_block_is_closed_when_the_next_one_begins() -> None:
    assert split_blocks("one\n\ntw") == (["one\n"], "tw")
    assert split_blocks("```\na\n\nb\n\n# no heading") == ([], "```\na\n\nb\n\n# no heading")
    assert split_blocks("- a\n\n- b\n") == ([], "- a\n\n- b\n")
    closed, tail = split_blocks(CHAT)
    assert "\n".join([*closed, tail]) == CHAT and len(closed) == 4


def test_a_block_higher_than_the_terminal_shows_its_end() -> None:
    tail = Tail()
    tail.markdown = "```\n" + "\n".join(f"line {n}" for n in range(100))
    console = Console(file=io.StringIO(), force_terminal=True, width=60, height=10)
    with console.capture() as capture:
        console.print(tail)
    lines = capture.get().splitlines()
    assert len(lines) <= 9 and any("line 99" in line for line in lines)
    assert "line 0" in shown(tail.markdown, height=10), "all of it is left at the end"


def test_an_empty_reply_and_a_remark_have_their_lines() -> None:
    assert shown() == MOSS.strip()
    assert shown("a", remark=" (stopped)").endswith("a\n(stopped)")


def test_rich_markup_is_text() -> None:
    assert "[bold]x[/bold] :smile:" in shown("[bold]x[/bold] :smile:")


def test_plain_pieces_come_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    screen = PlainScreen()
    for remark in ("", " (stopped)"):
        screen.begin()
        screen.aside("thinks: a")
        screen.text("Hi ")
        assert capsys.readouterr().out == f"(thinks: a)\n{MOSS}Hi "
        screen.text("*there*\x1b[2J<sup><|1|></sup>")
        screen.end(remark)
        assert capsys.readouterr().out == f"*there*[1]{remark}\n"


def test_what_comes_into_a_plain_reply_has_a_line_of_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    screen = PlainScreen()
    screen.begin()
    screen.text("Once")
    screen.aside("waiting")
    screen.text(" upon")
    screen.cut()
    screen.fail("too\nlong\x1b[0m")
    captured = capsys.readouterr()
    assert captured.out == f"{MOSS}Once\n(waiting)\n upon\n"
    assert captured.err == "moss: too long\n"
