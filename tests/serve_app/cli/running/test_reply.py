"""One reply on a screen: what is beside its text, its end, errors, and Ctrl-C."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from serve_app.cli.running.reply import show_reply
from serve_app.client.api import Api, ChatError
from serve_app.client.chat_client import ChatClient
from serve_app.client.turn_events import (
    Delta,
    Done,
    PluginCall,
    Reset,
    Thoughts,
    TurnEvent,
    Waiting,
)

ITEMS: list[Mapping[str, Any]] = [
    {"n": 1, "title": "First", "url": "http://one.example", "snippet": ""},
    {"n": 2, "title": "Second", "url": "", "snippet": ""},
]
PICTURE: Mapping[str, Any] = {"id": "a", "url": "/v1/images/a", "media_type": "image/png"}


@dataclass
class FakeScreen:
    """Writes down what it is to show."""

    lines: list[str] = field(default_factory=list)

    def show(self, line: str) -> None:
        self.lines.append(line)

    def note(self, line: str) -> None:
        self.lines.append(f"note {line}")

    def fail(self, message: str) -> None:
        self.lines.append(f"fail {message}")

    def begin(self) -> None:
        self.lines.append("begin")

    def status(self, line: str) -> None:
        self.lines.append(f"status {line}")

    def aside(self, lines: str) -> None:
        self.lines.append(f"aside {lines}")

    def text(self, piece: str) -> None:
        self.lines.append(f"text {piece}")

    def end(self, remark: str = "") -> None:
        self.lines.append(f"end{remark}")

    def cut(self) -> None:
        self.lines.append("cut")


class FakeClient(ChatClient):
    """Its turn ends with `rest` when it is stopped, or fails to."""

    def __init__(self, rest: str | BaseException = "") -> None:
        self.api = Api("http://localhost:1/")
        self.rest = rest

    def stop(self) -> str:
        if isinstance(self.rest, BaseException):
            raise self.rest
        return self.rest


def done(reply: str = "") -> Done:
    return Done({"id": "1", "reply": reply})


def shown(*events: TurnEvent | BaseException, rest: str | BaseException = "") -> list[str]:
    def told() -> Generator[TurnEvent]:
        for event in events:
            if isinstance(event, BaseException):
                raise event
            yield event

    screen = FakeScreen()
    client = FakeClient(rest)
    show_reply(client, told(), screen)
    client.close()
    assert screen.lines.pop(0) == "begin"
    return screen.lines


def test_text_is_told_as_it_comes() -> None:
    assert shown(Delta("Hi "), Delta("there"), done()) == ["text Hi ", "text there", "end"]


def test_thoughts_are_told_beside_it_unless_there_are_none() -> None:
    assert shown(Thoughts(" Add.\n"), Thoughts(" \n"), done()) == ["aside thinks: Add.", "end"]


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (PluginCall("Calculate", "1+\n1", "started"), 'status Calculate("1+ 1")'),
        (PluginCall("Calculate", "1", "done", "2", 1500), 'aside Calculate("1") -> 2, 1.5 s'),
        (PluginCall("Calculate", "1", "failed"), 'aside Calculate("1") -> no result'),
        (PluginCall("Solve", "1", "done", "x" * 300), f'aside Solve("1") -> {"x" * 200}...'),
        (PluginCall("Search", "1", "done", ITEMS), 'aside Search("1") -> 2 found'),
        (
            PluginCall("Text2Image", "1", "done", [PICTURE, PICTURE]),
            'aside Text2Image("1") -> ' + " ".join(["http://localhost:1/v1/images/a"] * 2),
        ),
    ],
)
def test_a_call_is_a_line(call: PluginCall, line: str) -> None:
    assert shown(call, done()) == [line, "end"]


def test_cited_sources_are_told_at_the_end() -> None:
    search = PluginCall("Search", "q", "done", ITEMS)
    assert shown(search, done("a<sup><|1|></sup><sup><|7|></sup>"))[-2:] == [
        "end",
        "aside [1] First http://one.example",
    ]
    assert shown(search, done("a <sup>2</sup>"))[-1] == "end"


def test_a_server_that_is_waited_for_is_told_of_once() -> None:
    waits = [Waiting("gone")] * 3
    lines = shown(Delta("a"), *waits, Delta("b"), *waits, done())
    told = "aside waiting for the server, Ctrl-C gives up: gone"
    assert lines.count(told) == 2 and lines.count("status waiting for the server") == 6


def test_a_reply_that_is_another_one_now_is_told_as_a_whole() -> None:
    assert shown(Delta("a"), Reset(), Delta("b"), done()) == [
        *("text a", "cut", "aside the reply is another one now; this is all of it"),
        *("text b", "end"),
    ]


def test_an_error_is_a_line() -> None:
    assert shown(Delta("a"), ChatError("too long")) == ["text a", "cut", "fail too long"]


def test_ctrl_c_ends_the_turn_and_shows_what_is_kept_of_it() -> None:
    assert shown(Delta("a"), KeyboardInterrupt(), rest="bc") == [
        *("text a", "text bc", "end (stopped)"),
    ]


@pytest.mark.parametrize("error", [ChatError("gone"), KeyboardInterrupt()])
def test_a_turn_that_cannot_be_ended_is_a_line(error: BaseException) -> None:
    *lines, last = shown(Delta("a"), KeyboardInterrupt(), rest=error)
    assert lines == ["text a", "end (stopped)"]
    assert last.startswith("fail the server may go on with it")
