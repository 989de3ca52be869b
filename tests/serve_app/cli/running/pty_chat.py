"""`moss chat` in a terminal of its own: keys go in, and what it writes comes out."""

import errno
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

TIMEOUT_S = 20
ENTER, ALT_ENTER, CTRL_C, CTRL_D, UP = "\r", "\x1b\r", "\x03", "\x04", "\x1b[A"
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|[()][0-9A-B]|[=>])")
ROWS, COLUMNS = 24, 80


class PtyChat:
    """A context manager: leaving it ends the chat, if it has not ended."""

    def __init__(
        self, url: str, state: Path, *arguments: str, env: Mapping[str, str] | None = None
    ) -> None:
        self._command = [sys.executable, "-m", "serve_app.cli.main", "chat", "--url", url]
        self._command += arguments
        # It asks a terminal where the cursor is; this one does not answer.
        names = {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", "XDG_STATE_HOME": str(state)}
        self._env = {**os.environ, **names, **(env or {})}
        self.raw = b""

    def __enter__(self) -> Self:
        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (ROWS, COLUMNS))
        self.process = subprocess.Popen(
            self._command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=self._env,
            start_new_session=True,
            preexec_fn=_own_terminal,
        )
        os.close(slave)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._master)

    @property
    def text(self) -> str:
        """All that was written, without escape sequences."""
        return _SEQUENCE.sub("", self.raw.decode(errors="replace")).replace("\r", "")

    def type(self, *keys: str) -> None:
        for key in keys:
            os.write(self._master, key.encode())

    def wait_for(self, *texts: str) -> None:
        """Until all of `texts` are there, in their order, after what was waited for before."""
        deadline = time.monotonic() + TIMEOUT_S
        while not _follow(texts, self._new_text()):
            assert time.monotonic() < deadline, f"not shown: {texts} in {self._new_text()!r}"
            self._read(0.05)
        self._seen = len(self.text)

    _seen = 0

    def _new_text(self) -> str:
        return self.text[self._seen :]

    def wait_end(self) -> int:
        """Its exit status."""
        deadline = time.monotonic() + TIMEOUT_S
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"it goes on: {self._new_text()!r}"
            self._read(0.05)
        while self._read(0):
            pass
        return self.process.wait()

    def _read(self, timeout_s: float) -> bool:
        if not select.select([self._master], [], [], timeout_s)[0]:
            return False
        try:
            chunk = os.read(self._master, 65536)
        except OSError as error:
            if error.errno != errno.EIO:  # nobody has the other end any more
                raise
            return False
        self.raw += chunk
        return bool(chunk)


def _own_terminal() -> None:
    """A Ctrl-C is for the processes of the terminal that has it."""
    import fcntl

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _follow(texts: Sequence[str], shown: str) -> bool:
    start = 0
    for text in texts:
        if (found := shown.find(text, start)) < 0:
            return False
        start = found + len(text)
    return True
