"""A real `moss serve` in a process of its own, on a free port and in a directory of its own."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil

from serve_app.demo.bundled import BUNDLED_MODEL

START_TIMEOUT_S = 240  # on an idle laptop it takes 15 s; tests also run on busy ones
STOP_TIMEOUT_S = 90


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class MossProcess:
    """Use as a context manager: entering returns when the server says that it is ready."""

    def __init__(self, directory: Path, *flags: str, model: Path = BUNDLED_MODEL) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._output = directory / "output.txt"
        self._command = [
            *(sys.executable, "-m", "serve_app.cli.main", "serve"),
            *("--model", str(model), "--port", str(self.port)),
            *("--data-dir", str(directory / "data"), *flags),
        ]

    def __enter__(self) -> Self:
        self.launch()
        try:
            self.wait_for("moss: ready in ")
        except BaseException:
            self.stop(signal.SIGKILL)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """A server that still runs is told to stop, and has to do so without a trace."""
        if self.process.poll() is None:
            started = self.descendants()
            assert self.stop(signal.SIGTERM) == 0, self.output
            assert still_alive(started, 1) == []

    def launch(self) -> None:
        with self._output.open("w") as output:
            # A session of its own stands for the terminal.
            self.process = subprocess.Popen(
                self._command, stdout=output, stderr=output, start_new_session=True
            )

    def wait_for(self, text: str) -> None:
        """Until the server has said so."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while text not in self.output:
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.1)

    @property
    def output(self) -> str:
        """All that a user has seen."""
        return self._output.read_text("utf-8")

    def descendants(self) -> list[psutil.Process]:
        """Every process that the server has started, and all that those have."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def stop(self, number: signal.Signals) -> int:
        """Its exit status after a signal, if it had not ended before."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(STOP_TIMEOUT_S)

    def press_ctrl_c(self) -> None:
        """SIGINT to the whole foreground group, as a terminal does."""
        os.killpg(self.process.pid, signal.SIGINT)

    def ask(self, prompt: str, timeout_s: float = 120, **fields: Any) -> dict[str, Any]:
        """The answer to one turn, which must succeed."""
        body = {"prompt": prompt, **fields}
        response = httpx.post(self.url, json=body, timeout=timeout_s)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def stats(self) -> dict[str, Any]:
        stats: dict[str, Any] = httpx.get(f"{self.url}/stats", timeout=30).json()
        return stats

    def wait_idle(self, timeout_s: float = 30) -> None:
        """Until no request is left in the engine and every block is free."""
        deadline = time.monotonic() + timeout_s
        while (stats := self.stats())["running"] + stats["waiting"] > 0:
            assert time.monotonic() < deadline, stats
            time.sleep(0.02)
        assert stats["free_blocks"] == stats["num_blocks"]

    def health(self) -> int:
        return httpx.get(f"{self.url}/health", timeout=30).status_code


def still_alive(processes: list[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Those that have not ended in time. One that only waits to be reaped has ended."""
    _, alive = psutil.wait_procs(processes, timeout=timeout_s)
    return [process for process in alive if not _is_zombie(process)]


def living_in(directory: Path) -> list[psutil.Process]:
    """Processes, whoever's, that work in `directory`, as the store does in its own."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(directory):
                found.append(process)
    return found


def ray_directory(processes: list[psutil.Process]) -> Path:
    """The temporary directory of the Ray that these processes belong to."""
    for process in processes:
        for argument in process.cmdline():
            if match := re.search(r"/tmp/moss-\w+", argument):
                return Path(match[0])
    raise AssertionError("there is no Ray among them")


def _is_zombie(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def listening_ports(processes: list[psutil.Process]) -> dict[int, str]:
    """The TCP ports that these processes listen on, and the addresses."""
    pids = {process.pid for process in processes}
    return {
        connection.laddr.port: connection.laddr.ip
        for connection in psutil.net_connections("tcp")
        if connection.laddr and connection.status == psutil.CONN_LISTEN and connection.pid in pids
    }
