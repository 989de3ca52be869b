"""Where a chat's inputs come from: an editor of lines in a terminal, or just lines.

A backslash at the end of a line goes on with the next one.
"""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from moss_tp.dialogue import MARKERS
from moss_tp.errors import ConfigError
from serve_app.cli.directory import make_directory

HUMAN = f"{MARKERS['human']} "
STOP = ("stop", "/stop")
Read = Callable[[], str]
"""The next input; raises EOFError at the end of them, and KeyboardInterrupt."""


def is_terminal() -> bool:
    """Whether this program may draw, and edit what is typed."""
    return (
        sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM") not in (None, "dumb")
    )


def read_lines() -> str:
    """An input as lines of stdin."""
    lines = [input(HUMAN)]
    while lines[-1].endswith("\\"):
        lines[-1] = lines[-1].removesuffix("\\")
        lines.append(input())
    return "\n".join(lines)


def make_editor() -> Read:
    """Inputs are edited, over several lines with Alt-Enter, and remembered from chat to chat."""
    session: PromptSession[str] = PromptSession(
        HUMAN, history=_history(), multiline=True, key_bindings=_keys(), prompt_continuation=""
    )
    return session.prompt


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def enter(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if not buffer.document.text_before_cursor.endswith("\\"):
            buffer.validate_and_handle()
            return
        buffer.delete_before_cursor()
        buffer.insert_text("\n")

    @keys.add("escape", "enter")
    def alt_enter(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


def _history() -> History:
    """In a file that this user alone can read; of this chat only, if there can be none."""
    try:
        directory = state_directory()
        make_directory(directory)
        (directory / "chat_history").touch(mode=0o600)
    except (ConfigError, OSError, RuntimeError):
        return InMemoryHistory()
    return _ChatHistory(str(directory / "chat_history"))


class _ChatHistory(FileHistory):
    """Forgets what cannot be written: text in another encoding, or on a full disk. And that the
    last chat was ended."""

    def store_string(self, string: str) -> None:
        if string.strip() in STOP:
            return
        with suppress(UnicodeEncodeError, OSError):
            string.encode()
            super().store_string(string)


def state_directory() -> Path:
    """Where this user's programs keep what they can do without, by the XDG specification.

    Raises RuntimeError for a user without a home.
    """
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".local/state") / "moss"
