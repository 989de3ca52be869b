"""Starts `moss demo NAME` on a free port, for the scripts that drive its page."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

START_S = 120


@contextmanager
def running_page(name: str, server: str) -> Iterator[str]:
    """The URL of the page, which is a client of `server`."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command = [sys.executable, "-m", "serve_app.cli.main", "demo", name]
    command += ["--url", server, "--port", str(port)]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_ready(url, process)
        yield url
    finally:
        os.killpg(process.pid, 2)
        process.wait(30)


def _wait_ready(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5)
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise RuntimeError(f"the page did not start within {START_S} s, or ended: {process.poll()}")
