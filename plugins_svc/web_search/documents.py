"""The user's documents: which files below one directory are read, and which are left out and why.

It reads names only; `ReaderProcess` reads the files.
"""

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = {".txt", ".text", ".md", ".markdown", ".html", ".htm", ".xhtml", ".pdf"}

LeaveOut = Callable[[Path, str], None]  # a path and the reason


@dataclass(frozen=True)
class Document:
    """A document to be searched, or a part of one. `url` is where people find it, or empty."""

    title: str
    url: str
    text: str


def find_documents(directory: Path, leave_out: LeaveOut) -> Iterator[Path]:
    """Every document below `directory`, by name; `leave_out` is told of everything else.

    Symbolic links are left out: they could lead out of the directory that the user shares.
    """
    walk = os.walk(directory, onerror=lambda error: leave_out(Path(error.filename), _told(error)))
    for folder, folders, names in walk:
        for name in sorted(names):
            path = Path(folder, name)
            if reason := _objection(path):
                leave_out(path, reason)
            else:
                yield path
        for name in folders:
            if Path(folder, name).is_symlink() or name.startswith("."):
                leave_out(Path(folder, name), _objection(Path(folder, name)))
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def shown(path: Path) -> str:
    """The name as text, if it is in another encoding than the system's."""
    raw = os.fsencode(path)
    for encoding in ("utf-8", "gb18030"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return raw.decode("utf-8", errors="replace")


def _objection(path: Path) -> str:
    """Why `path` is not read; empty if it is."""
    if path.name.startswith("."):
        return "hidden"
    try:
        mode = path.lstat().st_mode
    except OSError as error:
        return _told(error)
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    if path.suffix.lower() not in SUFFIXES:
        return "another kind of file"
    return "" if stat.S_ISREG(mode) else "not a file"


def _told(error: OSError) -> str:
    return (error.strerror or "unreadable").lower()
