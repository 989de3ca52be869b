"""One warm worker process that runs sympy: started at once, asked one call at a time, killed and
replaced when it does not answer in time. It knows the worker's lines, not what they mean.
"""

import json
import select
import subprocess
import sys
from pathlib import Path

START_TIMEOUT_S = 60.0
_COMMAND = [sys.executable, "-P", "-s", "-m", "plugins_svc.solver_worker"]
_ENVIRONMENT = {"PYTHONPATH": str(Path(__file__).parents[1])}  # and nothing of ours to steal


class SolverProcess:
    """Not thread-safe. Its stdin closes with this process, which ends the worker too."""

    def __init__(self) -> None:
        self._process = _start()
        self._is_ready = False

    @property
    def pid(self) -> int:
        """Process id of the worker as it is now."""
        return self._process.pid

    def ask(self, text: str, timeout_s: float) -> list[str]:
        """The worker's lines; none when it broke or did not answer within `timeout_s`."""
        lines = self._call(text, timeout_s)
        if lines is None:
            self.close()
            self._process, self._is_ready = _start(), False
        return lines or []

    def close(self) -> None:
        """Kill the worker and reap it."""
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
        """The next line, at most a pipe's atomic write long; None on silence or the end."""
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
        env=_ENVIRONMENT,
        start_new_session=True,  # Ctrl-C in a terminal is not for it
    )
