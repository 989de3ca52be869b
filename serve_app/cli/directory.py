"""A directory that a command writes into: made when missing, refused before any work is done."""

import tempfile
from pathlib import Path

from moss_tp.errors import ConfigError


def make_directory(directory: Path) -> None:
    """Makes a directory that only this user can read. Raises ConfigError if it is not writable."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise ConfigError(f"cannot write in {directory}: {error.strerror}") from error
