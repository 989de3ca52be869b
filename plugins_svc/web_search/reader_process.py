"""The parent's side of the process that reads documents: one file at a time, each within a limit.

A process that takes too long or breaks is replaced, and its file is left out.
"""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from plugins_svc.web_search.encodings import UnreadableError

FILE_TIMEOUT_S = 60.0  # of wall clock, so that a busy machine loses no document
_COMMAND = [sys.executable, "-P", "-s", "-m", "plugins_svc.web_search.reader_worker"]
_ENVIRONMENT = {"PYTHONPATH": str(Path(__file__).parents[2])}  # nothing else: no secrets to leak


class ReaderProcess:
    """Starts with the first file. `read` is for one thread, `close` for any."""

    def __init__(self, timeout_s: float = FILE_TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._is_closed = False

    def read(self, path: Path) -> Iterator[tuple[str, str]]:
        """Title and text of each part of the file.

        Raises UnreadableError, maybe after some parts, with the reason why there are no more.
        """
        process = self._running()
        timer = threading.Timer(self._timeout_s, process.kill)
        timer.daemon = True
        timer.start()
        is_done = False
        try:
            yield from self._parts(process, path)
            is_done = True
        except UnreadableError:
            is_done = True
            raise
        except (OSError, ValueError) as error:  # the process is gone, maybe amid a line
            took_too_long = not timer.is_alive()
            reason = "takes too long to read" if took_too_long else "breaks its reader"
            raise UnreadableError(reason) from error
        finally:
            timer.cancel()
            if not is_done:  # what it still has to say is of no use
                self._end()

    def close(self) -> None:
        """End the process; a running `read` raises. May be called again."""
        self._is_closed = True
        self._end()

    def _running(self) -> subprocess.Popen[str]:
        with self._lock:
            if self._is_closed:
                raise UnreadableError("the plugin was closed")
            if self._process is None:
                self._process = subprocess.Popen(
                    _COMMAND,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    encoding="ascii",  # of JSON as we write it
                    env=_ENVIRONMENT,
                    start_new_session=True,  # Ctrl-C in a terminal must not reach it
                )
            return self._process

    def _parts(self, process: "subprocess.Popen[str]", path: Path) -> Iterator[tuple[str, str]]:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(str(path)) + "\n")
        process.stdin.flush()
        while True:
            match json.loads(process.stdout.readline()):
                case [title, text]:
                    yield title, text
                case [""]:
                    return
                case [reason]:
                    raise UnreadableError(reason)

    def _end(self) -> None:
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            process.kill()
            with suppress(BrokenPipeError), process:
                pass
