"""A real `moss serve` in its own process, with a client of its API."""

import os
import signal
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil

from serve_app.bench.load.server_process import READY, ServerProcess
from serve_app.demo.bundled import BUNDLED_MODEL
from tests.support.processes import still_alive
from tests.support.waiting import wait_until

# An orderly stop leaves no process; the kernel may take a moment on a busy machine.
GONE_S = 5


class MossProcess(ServerProcess):
    """A context manager: entering it returns when the server is ready."""

    def __init__(self, directory: Path, *flags: str, model: Path = BUNDLED_MODEL) -> None:
        super().__init__(directory, ["--model", str(model), *flags])
        self.log = directory / "data" / "serve.log"

    def __enter__(self) -> Self:
        self.launch()
        try:
            self.wait_for(READY)
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
        """Stops a server that still runs, and checks that it stopped cleanly."""
        if self.process.poll() is None:
            started = self.descendants()
            assert self.stop() == 0, self.output
            assert still_alive(started, GONE_S) == []

    def descendants(self) -> list[psutil.Process]:
        """All processes that the server has started, directly or not."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def press_ctrl_c(self) -> None:
        """Sends SIGINT to the whole process group, as a terminal does."""
        os.killpg(self.process.pid, signal.SIGINT)

    def ask(self, prompt: str, timeout_s: float = 120, **fields: Any) -> dict[str, Any]:
        """The answer to one turn, which must succeed."""
        response = httpx.post(self.url, json={"prompt": prompt, **fields}, timeout=timeout_s)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def stats(self) -> dict[str, Any]:
        stats: dict[str, Any] = httpx.get(f"{self.url}/stats", timeout=30).json()
        return stats

    def wait_idle(self, timeout_s: float = 30) -> None:
        """Returns when the engine holds no request; then all its blocks must be free."""
        assert wait_until(lambda: not self._num_requests(), timeout_s), self.stats()
        stats = self.stats()
        assert stats["free_blocks"] == stats["num_blocks"]

    def _num_requests(self) -> int:
        stats = self.stats()
        count: int = stats["running"] + stats["waiting"]
        return count

    def health(self) -> int:
        """The status code of `/health`."""
        return httpx.get(f"{self.url}/health", timeout=30).status_code
