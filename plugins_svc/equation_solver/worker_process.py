"""The parent's side of a worker process that runs sympy.

The process starts at once and answers one call at a time; when it fails to answer in time it is
killed and replaced. This module reads the format of the worker's lines and does not interpret them.
"""

import json
import select
import subprocess

from plugins_svc.sdk.limited_process import ENVIRONMENT, command

START_TIMEOUT_S = 60.0
_COMMAND = command("plugins_svc.equation_solver.worker")


class WorkerProcess:
    """Not thread-safe. When this process ends, the worker's stdin closes and the worker exits."""

    def __init__(self) -> None:
        self._process = _start()
        self._is_ready = False

    @property
    def pid(self) -> int:
        """Process id of the current worker; it changes when the worker is replaced."""
        return self._process.pid

    def solve(self, text: str, timeout_s: float) -> list[str]:
        """The worker's answer; no lines when it crashed or took longer than `timeout_s`."""
        lines = self._call(text, timeout_s)
        if lines is None:
            self.close()
            self._process, self._is_ready = _start(), False
        return lines or []

    def close(self) -> None:
        """Kill the worker and reap it. May be called again."""
        with self._process:
            self._process.kill()

    def _call(self, text: str, timeout_s: float) -> list[str] | None:
        if not self._is_ready:
            self._is_ready = self._read_line(START_TIMEOUT_S) is not None
        stdin = self._process.stdin
        if not self._is_ready or stdin is None:
            return None
        try:
            stdin.write(json.dumps(text).encode() + b"\n")
        except BrokenPipeError:
            return None
        return self._read_line(timeout_s)

    def _read_line(self, timeout_s: float) -> list[str] | None:
        """The next line; None on a timeout or end of file.

        A line is shorter than a pipe's atomic write, so once there is input, it is whole.
        """
        stdout = self._process.stdout
        if stdout is None or not select.select([stdout], [], [], timeout_s)[0]:
            return None
        line = stdout.readline()
        return list(json.loads(line)) if line else None


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        _COMMAND,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        env=ENVIRONMENT,
        start_new_session=True,  # Ctrl-C in a terminal must not reach it
    )
