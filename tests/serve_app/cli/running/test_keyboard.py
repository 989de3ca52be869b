"""What is remembered of inputs, and where."""

from pathlib import Path

import pytest
from prompt_toolkit.history import FileHistory, InMemoryHistory

from serve_app.cli.running import keyboard


def test_the_state_directory_is_xdgs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    for value, path in (
        ("", "/home/ann/.local/state/moss"),
        ("relative", "/home/ann/.local/state/moss"),
        ("/var/ann", "/var/ann/moss"),
    ):
        monkeypatch.setenv("XDG_STATE_HOME", value)
        assert keyboard.state_directory() == Path(path)


def test_what_no_file_can_hold_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    history = keyboard._history()
    for text in ("one\ntwo", "\udcff", "stop", "你好"):
        history.append_string(text)
    assert isinstance(history, FileHistory)
    assert [*keyboard._history().load_history_strings()] == ["你好", "one\ntwo"]


def test_without_a_directory_the_chat_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "moss").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert isinstance(keyboard._history(), InMemoryHistory)


def test_a_backslash_goes_on_with_the_next_line(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = iter(["one\\", "two\\", "three", "four"])
    monkeypatch.setattr("builtins.input", lambda prompt="": next(lines))
    assert [keyboard.read_lines() for _ in range(2)] == ["one\ntwo\nthree", "four"]


@pytest.mark.parametrize("kind", [None, "dumb"])
def test_a_terminal_that_cannot_draw_is_none(
    kind: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert keyboard.is_terminal()
    monkeypatch.delenv("TERM") if kind is None else monkeypatch.setenv("TERM", kind)
    assert not keyboard.is_terminal()
