"""The demos' pages: what they show of a reply, and one line where one cannot be shown.

Their libraries have environments of their own: `make foreign` runs the pages.
"""

from pathlib import Path

import pytest

from serve_app.cli.demo.told import Told
from serve_app.client.turn_events import Delta, Done, PluginCall, Reset, Thoughts
from tests.support.moss_command import run_moss


@pytest.mark.parametrize("name", ["gradio", "streamlit"])
def test_a_missing_library_is_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()  # such as Gradio makes for its files
    shown = run_moss("demo", name, directory=tmp_path)
    assert shown.returncode == 1 and shown.stdout == ""
    assert shown.stderr == f"moss: {name} is missing: pip install 'moss-serve[{name}]'\n"


def test_a_page_shows_all_that_has_come() -> None:
    told = Told()
    item = {"title": "First", "url": "http://one.example"}
    for event in (
        *(Thoughts(" "), Thoughts(" Add.\n"), PluginCall("Calculate", "1+1", "started")),
        *(PluginCall("Calculate", "1+1", "done", "2"), PluginCall("Solve", "x", "failed")),
        *(
            PluginCall("Search", "q", "done", [item, {**item, "title": ""}]),
            Delta("It "),
            Delta("is"),
        ),
    ):
        told.take(event)
    assert told.markdown == "It is" and told.num_tokens == 0
    assert told.asides == [
        *(("Inner thoughts", "Add."), ("Calculate(1+1)", "2"), ("Solve(x)", "no result")),
        ("Search(q)", "First\nhttp://one.example"),
    ]
    told.take(Reset())
    assert told.text == ""
    told.take(Done({"reply": "2.<sup><|1|></sup>", "usage": {"total_tokens": 7}}))
    assert (told.markdown, told.num_tokens) == ("2.[1]", 7)


def test_a_picture_in_a_reply_is_a_link() -> None:
    assert Told("a ![b](http://c.example/?chat) !").markdown == "a [b](http://c.example/?chat) !"
