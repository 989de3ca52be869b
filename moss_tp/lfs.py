"""Recognises git-LFS pointers: the short text files that a clone without git-lfs has in place of
large ones."""

from pathlib import Path

from moss_tp.errors import CheckpointError

_START = b"version https://git-lfs.github.com/spec/"


def check_not_pointer(file: Path) -> None:
    """Raises CheckpointError, which says what to run, if `file` is a git-LFS pointer."""
    with file.open("rb") as opened:
        start = opened.read(len(_START))
    if start == _START:
        raise CheckpointError(
            f"{file} is a git-LFS pointer, not the file itself: "
            f"run `git lfs install && git lfs pull` in {file.parent}"
        )
