"""The embedded store of a directory for a command, whether a server runs it now or none does."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serve_app.errors import StoreInUseError
from serve_app.store.embedded import RECORD, EmbeddedStore, send_command

_PAUSE_S = 0.1


@contextmanager
def attached_store(data_dir: Path, timeout_s: float = 20) -> Iterator[str]:
    """The URL of the store of `data_dir`: that of the server that has it, or of one of its own,
    which runs for the block. Raises what `EmbeddedStore.start` raises."""
    url, own = _find(data_dir, time.monotonic() + timeout_s)
    try:
        yield url
    finally:
        if own is not None:
            own.stop()


def _find(data_dir: Path, deadline: float) -> tuple[str, EmbeddedStore | None]:
    while True:
        if (url := _running_url(data_dir)) is not None:
            return url, None
        own = EmbeddedStore(data_dir)
        try:
            own.start()
            return own.url, own
        except StoreInUseError:  # its server does not listen yet, or no longer
            if time.monotonic() > deadline:
                raise
        time.sleep(_PAUSE_S)


def _running_url(data_dir: Path) -> str | None:
    try:
        path = Path((data_dir / RECORD).read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    return None if send_command(path, b"PING\r\n") is None else f"unix://{path}"
