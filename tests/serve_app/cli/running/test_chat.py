"""`moss chat` at the keyboard: what it prints, its two commands, and Ctrl-C at every place."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field

import pytest
from click.testing import CliRunner, Result

from serve_app.cli.running import chat
from serve_app.client.chat_client import ChatError

Reply = list[str | BaseException]


@dataclass
class FakeClient:
    """Answers with `replies` in order; an exception among the pieces is raised."""

    replies: list[Reply] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    error: ChatError | None = None
    key: str | None = None

    def check(self) -> None:
        if self.error is not None:
            raise self.error

    def ask(self, text: str) -> Generator[str]:
        self.calls.append(text)
        try:
            for piece in self.replies.pop(0):
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            self.calls.append("closed")

    def clear(self) -> None:
        self.calls.append("(clear)")

    def close(self) -> None:
        self.calls.append("(close)")


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeClient]:
    made = FakeClient()

    def connect(url: str, key: str | None) -> FakeClient:
        made.key = key
        return made

    monkeypatch.setattr(chat, "ChatClient", connect)
    monkeypatch.setenv("MOSS_API_KEY", "a-key-of-mine")
    yield made
    assert made.key == "a-key-of-mine"
    assert made.calls[-1] == "(close)", "the connection is closed, however the chat ended"


def talk(typed: str) -> Result:
    return CliRunner().invoke(chat.command, input=typed)


def test_a_reply_is_shown_after_its_marker(client: FakeClient) -> None:
    client.replies = [["Hi ", "there"], []]
    shown = talk("  hello \n\nagain\nstop\n")
    assert shown.exit_code == 0
    assert client.calls == ["hello", "closed", "again", "closed", "(close)"]
    lines = shown.stdout.splitlines()
    assert lines[0] == chat.GREETING
    assert any(line.endswith("<|MOSS|>: Hi there") for line in lines)
    assert shown.stdout.count(chat.MOSS) == 2, "an empty reply has its line too"


def test_clear_starts_a_new_chat_and_sends_nothing(client: FakeClient) -> None:
    shown = talk("clear\nstop\n")
    assert client.calls == ["(clear)", "(close)"]
    assert "(a new chat)" in shown.stdout


def test_the_end_of_input_ends_the_chat(client: FakeClient) -> None:
    client.replies = [["Hi"]]
    assert talk("hello").exit_code == 0
    assert client.calls == ["hello", "closed", "(close)"]


def test_ctrl_c_at_the_prompt_ends_the_chat(
    client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(prompt: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", interrupted)
    assert talk("").exit_code == 0


def test_ctrl_c_in_a_reply_stops_only_the_reply(client: FakeClient) -> None:
    client.replies = [["Once upon", KeyboardInterrupt()], ["Hi"]]
    shown = talk("a tale\nhello\nstop\n")
    assert client.calls == ["a tale", "closed", "hello", "closed", "(close)"]
    assert f"{chat.MOSS}Once upon (stopped)\n" in shown.stdout


@pytest.mark.parametrize(
    ("pieces", "error"), [([], "moss: too long\n"), (["Hi"], "\nmoss: too long\n")]
)
def test_an_error_is_a_separate_line_and_the_chat_continues(
    client: FakeClient, pieces: list[str], error: str
) -> None:
    client.replies = [[*pieces, ChatError("too long")], ["Better"]]
    shown = talk("x\ny\nstop\n")
    assert shown.exit_code == 0
    assert shown.stderr == error
    assert "Better" in shown.stdout


def test_without_a_server_no_prompt_is_shown(client: FakeClient) -> None:
    client.error = ChatError("is `moss serve` running?")
    shown = talk("hello\n")
    assert shown.exception is client.error
    assert shown.stdout == ""
