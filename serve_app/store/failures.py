"""What a failure of the store means, in plain words, and whether it may pass by itself.

The words are our own: an error's text may contain the store's password.
"""

import asyncio
import errno
import os
import shutil
from pathlib import Path

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ConnectionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
)

# The code that begins an error reply, or an error that a script passes on.
_WORDS = {
    "MISCONF": "it cannot write to its disk",
    "OOM": "its memory is full",
    "READONLY": "it is a replica that takes no writes",
    "LOADING": "it is still loading its data",
    "NOAUTH": "it wants a password",
    "WRONGPASS": "it refuses the user name or the password",
    "NOPERM": "its user lacks a permission",
    "CLUSTERDOWN": "its cluster is down",
    "MASTERDOWN": "it is a replica without a primary",
    "NOREPLICAS": "it has too few replicas to take writes",
}
_PASSING = ("READONLY", "LOADING", "CLUSTERDOWN", "MASTERDOWN", "NOREPLICAS", "TRYAGAIN")
_FULL_DISK = os.strerror(errno.ENOSPC)
_DISK_ERRORS = [
    os.strerror(number)
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
]
# With less free space even a small append-only file cannot grow.
_MIN_FREE_BYTES = 64 * 1024


def may_pass(error: Exception) -> bool:
    """Whether another attempt, over a new connection, may succeed within seconds."""
    error = _reply(error)
    if isinstance(error, AuthenticationError | AuthorizationError):
        return False
    if isinstance(error, ResponseError | BusyLoadingError | ReadOnlyError):
        return _code(error) in _PASSING
    return True


def explain(error: Exception, data_dir: Path | None = None) -> str:
    """Why the store failed. `data_dir` is where it keeps its data, if that is on this machine."""
    error = _reply(error)
    if (code := _code(error)) is not None:
        return ": ".join([_WORDS[code], *(why for why in _DISK_ERRORS if why in str(error))])
    if isinstance(error, AuthenticationError | AuthorizationError):
        return _WORDS["WRONGPASS"]
    if not isinstance(error, ConnectionError | OSError | TimeoutError):
        return type(error).__name__
    # A server that has to write every turn to its disk ends when it cannot.
    if data_dir is not None and _is_full(data_dir):
        return f"{_WORDS['MISCONF']}: {_FULL_DISK}"
    if isinstance(error, TimeoutError | asyncio.TimeoutError):
        return "it does not answer"
    return _connection_words(error)


def _reply(error: Exception) -> Exception:
    """`error`, or the server's reply in it: one to a handshake is wrapped."""
    return error.__cause__ if isinstance(error.__cause__, RedisError) else error


def _code(error: Exception) -> str | None:
    """The known code of an error reply. Servers before Redis 7 put it inside a script's error."""
    if isinstance(error, RedisError) and error.status_code in _WORDS:
        return error.status_code
    words = str(error).replace("-", " ").split() if isinstance(error, ResponseError) else []
    return next((word for word in words if word in _WORDS), None)


def _connection_words(error: Exception) -> str:
    cause = error if isinstance(error, OSError) else error.__context__
    if isinstance(cause, OSError) and cause.errno is not None:
        return os.strerror(cause.errno)
    if str(error) == "max number of clients reached":
        return "it takes no more connections"
    return "it closed the connection"


def _is_full(directory: Path) -> bool:
    try:
        return shutil.disk_usage(directory).free < _MIN_FREE_BYTES
    except OSError:
        return False
