"""A `moss serve` of the benchmark's own, in a process of its own, on a free port."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from serve_app.bench.load.sse_client import BenchError

START_TIMEOUT_S = 300
STOP_TIMEOUT_S = 60
POLL_S = 0.1
READY = "moss: ready in "


@contextmanager
def served(flags: Sequence[str]) -> Iterator[str]:
    """The URL of a server started with `flags`, for the length of the block. BenchError, with
    the server's own words, when it does not start."""
    port = _free_port()
    with TemporaryDirectory(prefix="moss-bench-") as name:
        directory = Path(name)
        command = [sys.executable, "-m", "serve_app.cli.main", "serve", *flags]
        command += ["--port", str(port), "--data-dir", str(directory / "data")]
        told = directory / "told.txt"
        with told.open("w") as output:
            # The imports that work here have to work there, wherever this was started.
            path = os.pathsep.join(entry for entry in sys.path if entry)
            process = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,  # Ctrl-C is ours to pass on
            )
        try:
            _wait_ready(process, told)
            yield f"http://127.0.0.1:{port}"
        finally:
            _stop(process)


def _wait_ready(process: "subprocess.Popen[bytes]", told: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while READY not in (text := told.read_text(encoding="utf-8")):
        if process.poll() is not None or time.monotonic() > deadline:
            raise BenchError(f"the server did not start: {' '.join(text.split()[-60:])}")
        time.sleep(POLL_S)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
