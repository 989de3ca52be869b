"""`moss chat` in a terminal, on the real application with a scripted model."""

import json
import stat
from pathlib import Path

import pytest

from plugins_svc.sdk.output import Item, PluginOutput
from tests.serve_app.cli.running.pty_chat import (
    ALT_ENTER,
    CTRL_C,
    CTRL_D,
    ENTER,
    UP,
    PtyChat,
)
from tests.serve_app.client.sites import Line, Served
from tests.support.chat_fakes import think_of

HUMAN, MOSS = "<|Human|>:", "<|MOSS|>:"


def users(app: Served) -> list[str]:
    """What the model was asked last, turn by turn."""
    prompt = app.site.model.prompts[-1]
    return [part.split("<eoh>")[0].strip() for part in prompt.split("<|Human|>:")[1:]]


def test_a_chat_at_the_keyboard(app: Served, tmp_path: Path) -> None:
    app.site.model.reply = lambda prompt: f" **bold** {prompt.count('<eoh>')}\n\n1. `code`<eom>"
    with PtyChat(app.url, tmp_path) as chat:
        chat.wait_for("Chat with MOSS", HUMAN)
        chat.type("first", ENTER)
        chat.wait_for("thinks: Nothing to do.", MOSS, "bold 1", " 1 code", HUMAN)
        chat.type("one", ALT_ENTER, "two\\", ENTER, "three", ENTER)
        chat.wait_for("bold 2", HUMAN)
        assert users(app)[-1] == "one\ntwo\nthree"
        chat.type("/regen", ENTER)
        chat.wait_for("bold 2", HUMAN)
        chat.type("/plugins off calculator", ENTER)
        chat.wait_for("(off calculator: ", HUMAN)
        chat.type("/plugins", ENTER)
        chat.wait_for("(off calculator: ", HUMAN)
        chat.type("/plugins on nonsense", ENTER)
        chat.wait_for("moss: there is no plugin nonsense", HUMAN)
        chat.type(f"/save {tmp_path}/a.json", ENTER)
        chat.wait_for("(saved as ", HUMAN)
        chat.type("clear", ENTER)
        chat.wait_for("(a new chat)", HUMAN)
        chat.type("third", ENTER)
        chat.wait_for("bold 1", HUMAN)
        chat.type(CTRL_D)
        assert chat.wait_end() == 0
        assert "**" not in chat.text and f"--url {app.url} --chat " in chat.text
    saved = json.loads((tmp_path / "a.json").read_text())
    assert [turn["user"] for turn in saved["turns"]] == ["first", "one\ntwo\nthree"]
    assert saved["plugins"] == ["web_search"]


def test_what_was_typed_is_remembered_for_this_user_alone(app: Served, tmp_path: Path) -> None:
    for keys in (("first words", ENTER), (UP, ENTER)):
        with PtyChat(app.url, tmp_path) as chat:
            chat.wait_for(HUMAN)
            chat.type(*keys)
            chat.wait_for(MOSS, HUMAN)
            chat.type("stop", ENTER)
            assert chat.wait_end() == 0
        assert users(app) == ["first words"], "`stop` is not worth it"
    history = tmp_path / "moss" / "chat_history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert stat.S_IMODE(history.parent.stat().st_mode) == 0o700


def test_ctrl_c_stops_a_reply_and_the_chat_keeps_what_was_told(app: Served, tmp_path: Path) -> None:
    app.site.model.reply = lambda prompt: " Once upon a time<eom>"
    app.held_from = 10
    with PtyChat(app.url, tmp_path) as chat:
        chat.wait_for(HUMAN)
        chat.type("a tale", ENTER)
        chat.wait_for("Once upon")
        chat.type(CTRL_C)
        chat.wait_for("Once upon", "(stopped)", HUMAN)
        app.gate.set()
        chat.type("go on", ENTER)
        chat.wait_for("Once upon a time", HUMAN)
        assert "Once upon<eom>" in app.site.model.prompts[-1], "it is a turn of the chat"
        chat.type(CTRL_C)
        assert chat.wait_end() == 0


def test_a_connection_that_breaks_costs_nothing(app: Served, line: Line, tmp_path: Path) -> None:
    app.site.model.reply = lambda prompt: " Once upon a time<eom>"
    app.held_from = 10
    with PtyChat(line.url, tmp_path) as chat:
        chat.wait_for(HUMAN)
        chat.type("a tale", ENTER)
        chat.wait_for("Once upon")
        line.is_down = True
        line.drop()
        chat.wait_for("waiting for the server, Ctrl-C gives up: ")
        line.is_down = False
        app.gate.set()
        chat.wait_for("a time", HUMAN)
        chat.type("stop", ENTER)
        assert chat.wait_end() == 0
        assert chat.text.count("waiting for the server, Ctrl-C") == 1


def test_sources_are_shown_and_nothing_controls_the_terminal(app: Served, tmp_path: Path) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J"
    app.site.model.think = think_of(f'Search("q{evil}")')
    app.site.model.reply = lambda prompt: f" It is.{evil}<sup><|1|></sup><eom>"
    output = PluginOutput(True, items=(Item(f"T{evil}itle", "http://one.example", "text"),))
    app.site.plugins.answers[f"q{evil}"] = output
    with PtyChat(app.url, tmp_path) as chat:
        chat.wait_for(HUMAN)
        chat.type("is it?", ENTER)
        chat.wait_for('Search("q") -> 1 found', "It is.[1]", "[1] Title http://one.example", HUMAN)
        assert b"owned" not in chat.raw and b"\x1b[2J" not in chat.raw
        chat.type("stop", ENTER)
        chat.wait_end()


def test_a_chat_goes_on_where_it_was(app: Served, tmp_path: Path) -> None:
    arguments: list[str] = []
    for expected in ("turn 1", "turn 2"):
        with PtyChat(app.url, tmp_path, *arguments) as chat:
            chat.wait_for(HUMAN)
            chat.type("hi", ENTER)
            chat.wait_for(expected, HUMAN)
            chat.type("stop", ENTER)
            assert chat.wait_end() == 0
        arguments = ["--chat", chat.text.rpartition("--chat ")[2].strip(")\n")]


@pytest.mark.parametrize(
    ("encoding", "shown", "told"),
    [("ascii", "?? fox", "not in the encoding of this terminal"), ("gbk", " fox", MOSS)],
)
def test_a_terminal_of_another_encoding(
    app: Served, tmp_path: Path, encoding: str, shown: str, told: str
) -> None:
    app.site.model.reply = lambda prompt: " 你好 fox<eom>"
    with PtyChat(app.url, tmp_path, env={"PYTHONIOENCODING": encoding}) as chat:
        chat.wait_for(HUMAN)
        chat.type("hello", ENTER)
        chat.wait_for(MOSS, shown, HUMAN)
        chat.type("你好", ENTER)  # in UTF-8, which is no text in ASCII, and another one in GBK
        chat.wait_for(told, HUMAN)
        chat.type(CTRL_C)
        assert chat.wait_end() == 0
