"""A `moss serve` in its own process, on a free port of loopback, started and stopped for a caller.

`moss bench` measures it; the end-to-end tests build on it.
"""

import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from serve_app.bench.load.errors import BenchError

START_TIMEOUT_S = 300  # 15 s on an idle laptop, far more on a busy one
STOP_TIMEOUT_S = 90
POLL_S = 0.1
READY = "moss: ready in "
_PR_SET_PDEATHSIG = 1  # linux/prctl.h

# Below the ports that Linux gives to whoever asks for any, Ray's own processes among them.
PORTS = range(20_000, 32_768)


def free_port() -> int:
    """A TCP port of loopback that is free now, and that nobody gets by chance."""
    for _ in range(len(PORTS)):
        port = random.choice(PORTS)
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise BenchError(f"no port from {PORTS.start} to {PORTS.stop - 1} is free")


def _stop_after(parent: int) -> Callable[[], None]:
    """What a new process does so that it gets SIGTERM when its `parent` has ended."""
    prctl = ctypes.CDLL(None).prctl

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it ended before it could be tied to
            os._exit(1)

    return tie


class ServerProcess:
    """`moss serve` with `flags`; its data and its output go to `directory`."""

    process: "subprocess.Popen[bytes]"

    def __init__(self, directory: Path, flags: Sequence[str]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._output = directory / "output.txt"
        self._command = [
            *(sys.executable, "-m", "serve_app.cli.main", "serve", *flags),
            *("--port", str(self.port), "--data-dir", str(directory / "data")),
        ]

    @property
    def output(self) -> str:
        """Everything the server has printed so far."""
        return self._output.read_text("utf-8")

    def launch(self) -> None:
        """Starts the process and returns at once. On Linux the server also stops, in order, when
        the thread that called this ends, however that does."""
        # The child imports from where this process does, whatever its working directory is.
        path = os.pathsep.join(entry for entry in sys.path if entry)
        with self._output.open("w") as output:
            self.process = subprocess.Popen(
                self._command,
                stdout=output,
                stderr=output,
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,  # a Ctrl-C in this terminal does not reach the server
                preexec_fn=_stop_after(os.getpid()) if sys.platform == "linux" else None,
            )

    def wait_for(self, text: str) -> None:
        """Returns when the server has printed `text`.

        Raises BenchError with the end of its output if it exits first or takes too long.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while text not in self.output:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"the server did not start: {' '.join(self.output.split()[-60:])}")
            time.sleep(POLL_S)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Sends the signal if the server still runs; returns its exit status.

        A server that does not end in STOP_TIMEOUT_S is killed with its process group.
        """
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            return self.process.wait()


@contextmanager
def running_server(flags: Sequence[str]) -> Iterator[ServerProcess]:
    """A ready server with `flags`. Raises BenchError when it does not start."""
    with TemporaryDirectory(prefix="moss-bench-") as directory:
        server = ServerProcess(Path(directory), flags)
        server.launch()
        try:
            server.wait_for(READY)
            yield server
        finally:
            server.stop()
