"""The user's documents: .txt and .md files below one directory, read as UTF-8."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = {".txt", ".md"}
MAX_FILE_BYTES = 4 * 2**20


@dataclass(frozen=True)
class Document:
    """A document to be searched. `url` is where people find it, or empty."""

    title: str
    url: str
    text: str


def read_documents(directory: Path) -> Iterator[Document]:
    """Every document below `directory` with its relative path, at most MAX_FILE_BYTES of each.

    Symbolic links are skipped: they could lead out of the directory that the user shares.
    """
    for path in sorted(directory.rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                text = file.read(MAX_FILE_BYTES).decode("utf-8", errors="replace")
            yield Document(path.stem, path.relative_to(directory).as_posix(), text)
