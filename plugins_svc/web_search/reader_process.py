"""The parent's side of the process that reads documents: one file at a time, each within a limit.

A process that takes too long or breaks is replaced, and its file is left out.
"""

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from plugins_svc.sdk.limited_process import ENVIRONMENT, command
from plugins_svc.web_search.encodings import UnreadableError
from plugins_svc.web_search.markup import Readable

FILE_TIMEOUT_S = 60.0  # of wall clock, so that a busy machine loses no document
_COMMAND = command("plugins_svc.web_search.reader_worker")


class ReaderProcess:
    """Starts with the first file. `read` is for one thread, `close` for any."""

    def __init__(self, timeout_s: float = FILE_TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._is_closed = False
        self._took_too_long = False

    def read(self, path: Path) -> Iterator[Readable]:
        """Each part of the file.

        Raises UnreadableError, maybe after some parts, with the reason why there are no more.
        """
        process = self._running()
        is_done = False
        try:
            yield from self._parts(process, path)
            is_done = True
        except UnreadableError:
            is_done = True
            raise
        except (OSError, ValueError) as error:  # the process is gone, maybe amid a line
            raise UnreadableError(self._breakdown(process)) from error
        finally:
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
            if self._process is not None and self._process.poll() is not None:
                _reap(self._process)  # it died between two files
                self._process = None
            if self._process is None:
                self._took_too_long = False
                self._process = subprocess.Popen(
                    _COMMAND,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    encoding="ascii",  # of JSON as we write it
                    errors="replace",
                    env=ENVIRONMENT,
                    start_new_session=True,  # Ctrl-C in a terminal must not reach it
                )
            return self._process

    def _parts(self, process: "subprocess.Popen[str]", path: Path) -> Iterator[Readable]:
        assert process.stdin is not None
        left_s = self._timeout_s  # the consumer's time does not count
        process.stdin.write(json.dumps(str(path)) + "\n")
        process.stdin.flush()
        while True:
            start = time.monotonic()
            line = self._line(process, left_s)
            left_s = max(0.0, left_s - (time.monotonic() - start))
            match json.loads(line):
                case [title, text, guess]:
                    yield Readable(title, text, guess)
                case [""]:
                    return
                case [reason]:
                    raise UnreadableError(reason)

    def _line(self, process: "subprocess.Popen[str]", timeout_s: float) -> str:
        assert process.stdout is not None
        timer = threading.Timer(timeout_s, self._stop, [process])
        timer.daemon = True
        timer.start()
        try:
            return process.stdout.readline()
        finally:
            timer.cancel()

    def _stop(self, process: "subprocess.Popen[str]") -> None:
        self._took_too_long = True
        process.kill()

    def _breakdown(self, process: "subprocess.Popen[str]") -> str:
        """Why there are no more lines. What a worker says is why it could not start."""
        if self._took_too_long:
            return "takes too long to read"
        process.kill()
        said = ""
        with suppress(OSError, ValueError):  # closed meanwhile
            said = process.stderr.read().strip() if process.stderr else ""
        return f"breaks its reader ({said.splitlines()[-1]})" if said else "breaks its reader"

    def _end(self) -> None:
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            process.kill()
            _reap(process)


def _reap(process: "subprocess.Popen[str]") -> None:
    with suppress(BrokenPipeError), process:
        pass
