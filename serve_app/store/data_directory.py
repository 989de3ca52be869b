"""Whether a directory may be the embedded store's: a new one, or one that it has used before."""

from pathlib import Path

from moss_tp.errors import ConfigError

LOCK = "lock"  # every directory that a store has used has one, with a process id
_MAX_LOCK_BYTES = 20


def check_own(directory: Path) -> None:
    """Raises ConfigError for a directory in which somebody else's files could be overwritten."""
    if not directory.is_dir() or not any(directory.iterdir()):
        return
    lock = directory / LOCK
    if lock.is_file() and lock.stat().st_size <= _MAX_LOCK_BYTES:
        content = lock.read_bytes()
        if not content or content.isdigit():
            return
    raise ConfigError(
        f"{directory} holds files that no session store made: choose another --data-dir"
    )
