"""Short-lived directories for sockets and logs, in one private folder per user of this machine.

Ray opens its directory to everybody, so the folder above it must not let anybody else through. A
directory is locked while its process lives; the next one clears those that nobody holds.
"""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from moss_tp.errors import ConfigError

MAX_SOCKET_PATH = 107  # bytes of sun_path, less the final zero
_SHORT = "/tmp"
_MAX_TRIES = 10


@dataclass(frozen=True)
class RunDirectory:
    """`path` belongs to whoever holds `lock`, a file descriptor that a child may inherit too."""

    path: Path
    lock: int

    def remove(self) -> None:
        """Removes it with all it holds, and gives up the lock."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.release()

    def release(self) -> None:
        """Keeps the directory, until another run clears it."""
        os.close(self.lock)


def make_run_directory(kind: str, longest_socket: str) -> RunDirectory:
    """A new, locked directory; leftovers of killed runs of the same `kind` are cleared first.

    `longest_socket` is the longest path, relative to it, on which a socket will listen. Raises
    ConfigError if no folder is private and writable, or the path of the socket would be too long.
    Never waits for another run, which may be stopped.
    """
    parent = _private_folder(len(os.fsencode(f"/{kind}-12345678/{longest_socket}")))
    _clear(parent, kind)
    for _ in range(_MAX_TRIES):
        path = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=parent))
        if (lock := _lock(path)) is None:
            continue  # another run has taken it for a leftover
        if path.exists():
            return RunDirectory(path, lock)
        os.close(lock)  # of what that run has removed
    raise ConfigError(f"no directory in {parent} can be locked; set TMPDIR to another folder")


@contextmanager
def run_directory(kind: str, longest_socket: str) -> Iterator[Path]:
    """The same for the length of the block; after an error, its files are kept."""
    made = make_run_directory(kind, longest_socket)
    try:
        yield made.path
    except Exception:
        made.release()
        raise
    except BaseException:  # a request to stop
        made.remove()
        raise
    made.remove()


def _private_folder(rest: int) -> Path:
    """`moss-UID` in the temporary folder, or in /tmp if `rest` more bytes would be too long."""
    reasons = []
    for base in dict.fromkeys((tempfile.gettempdir(), _SHORT)):
        folder = Path(base, f"moss-{os.geteuid()}")
        if len(os.fsencode(folder)) + rest > MAX_SOCKET_PATH:
            reasons.append(f"{folder} is too long a path for sockets")
            continue
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            _check_private(folder)
            return folder
        except OSError as error:
            reasons.append(f"cannot make {folder}: {error.strerror}")
        except ConfigError as error:
            reasons.append(str(error))
    raise ConfigError(f"{'; '.join(reasons)}; set TMPDIR to a short path that you can write to")


def _check_private(folder: Path) -> None:
    """Raises ConfigError unless it is a directory of this user that no one else can enter."""
    status = folder.lstat()
    is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    if not is_ours or status.st_mode & 0o077:
        raise ConfigError(f"{folder} is not a directory that only you can enter")


def _clear(parent: Path, kind: str) -> None:
    """Removes the directories of this kind whose processes are gone."""
    for path in parent.glob(f"{kind}-*"):
        if path.is_symlink() or not path.is_dir():
            continue
        if (lock := _lock(path)) is not None:
            RunDirectory(path, lock).remove()


def _lock(path: Path) -> int | None:
    """The kernel drops the lock with the last process that has it open; None if one has."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock
