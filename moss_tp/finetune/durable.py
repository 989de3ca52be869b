"""Directories that survive a crash: flushed to disk first, then renamed as a whole.

It knows no format but JSON. Every error is an OSError.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

_SAMPLE = 1 << 20  # bytes


def write_json(file: Path, value: dict[str, Any]) -> None:
    """Writes a small file, flushed to disk."""
    with file.open("w", encoding="utf-8") as opened:
        opened.write(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
        opened.flush()
        os.fsync(opened.fileno())


def sync(path: Path) -> None:
    """Flushes a file's bytes, or a directory's names, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def files_in(directory: Path) -> list[Path]:
    """All files below a directory, sorted."""
    return sorted(path for path in directory.rglob("*") if path.is_file())


def sync_tree(directory: Path) -> None:
    """Flushes everything below a directory to disk, whichever process wrote it."""
    for path in (*files_in(directory), *directory.rglob("*/"), directory):
        sync(path)


def rename(source: Path, target: Path) -> None:
    """Renames at once, and for good: after a crash one of the two names is there, whole."""
    source.rename(target)
    for directory in {source.parent, target.parent}:
        sync(directory)


def remove(directory: Path) -> None:
    """Removes a directory: its name at once, so that no half of it is taken for it, and what then
    cannot be removed stays as a leftover."""
    old = directory.with_name(f"{directory.name}.old")
    directory.rename(old)
    shutil.rmtree(old, ignore_errors=True)


def fingerprint(file: Path) -> str:
    """Tells versions of a file apart by its size and its first and last MiB.

    Formats with an index at an end (zip, safetensors' header) are thus covered; hashing all of a
    large model's state would take minutes, while other processes wait.
    """
    size = file.stat().st_size
    with file.open("rb") as opened:
        digest = hashlib.sha256(opened.read(_SAMPLE))
        opened.seek(max(size - _SAMPLE, 0))
        digest.update(opened.read(_SAMPLE))
    return f"{size}-{digest.hexdigest()[:32]}"
