"""A directory that a command writes into: made when missing, refused before any work is done."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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


@contextmanager
def new_entries(directory: Path, names: Sequence[str]) -> Iterator[Path]:
    """A directory to write `names` in. They get their places in `directory` when all are whole.

    Raises ConfigError, having written nothing, if one of them is there already.
    """
    make_directory(directory)
    for name in names:
        if (directory / name).exists() or (directory / name).is_symlink():
            raise ConfigError(f"{directory / name} is there already: choose another directory")
    with tempfile.TemporaryDirectory(prefix=".moss-", suffix=".new", dir=directory) as new:
        yield Path(new)
        for name in names:
            (Path(new) / name).rename(directory / name)
