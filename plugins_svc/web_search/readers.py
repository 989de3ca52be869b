"""Reads one file of any kind that is known: its title, and its text in pieces.

Text that is larger than MAX_PARSED_BYTES is read as plain text if it is Markdown. It runs in the
reader's limited process, since a file may be written to break its parser.
"""

import codecs
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from plugins_svc.web_search.encodings import UnreadableError, decoded, encoding_of
from plugins_svc.web_search.markup import Readable, html_text, markdown_text

MAX_PARSED_BYTES = 4 * 2**20

# As browsers read them: https://encoding.spec.whatwg.org/#names-and-labels
_WESTERN = dict.fromkeys(("iso8859-1", "ascii"), "cp1252")
_META_CHARSET = re.compile(rb"<(?:meta|\?xml)[^>]*?(?:charset|encoding)\s*=\s*[\"']?([-\w]+)", re.I)


def read_file(path: Path) -> Iterator[Readable]:
    """The parts of the document at `path`. UnreadableError says why there are none."""
    with path.open("rb") as file:
        start = file.read(4)
    if start == b"%PDF":
        return _pdf(path)
    if start in (b"PK\3\4", b"\x1f\x8b\x08\x00", b"\xd0\xcf\x11\xe0"):
        raise UnreadableError("binary")
    return READERS[path.suffix.lower()](path)


def _plain(path: Path) -> Iterator[Readable]:
    encoding = encoding_of(path)
    for text in decoded(path, encoding):
        yield Readable("", text, _guessed(encoding))


def _markdown(path: Path) -> Iterator[Readable]:
    if path.stat().st_size > MAX_PARSED_BYTES:
        yield from _plain(path)
    else:
        encoding = encoding_of(path)
        readable = markdown_text("".join(decoded(path, encoding)))
        yield readable._replace(guess=_guessed(encoding))


def _html(path: Path) -> Iterator[Readable]:
    if path.stat().st_size > MAX_PARSED_BYTES * 8:
        raise UnreadableError("too large for HTML")
    encoding = encoding_of(path)
    guess = _guessed(encoding)
    if guess and (declared := _declared_encoding(path)):
        encoding, guess = declared, ""
    yield html_text("".join(decoded(path, encoding)))._replace(guess=guess)


def _guessed(encoding: str) -> str:
    return "" if encoding.startswith("utf") else encoding


def _declared_encoding(path: Path) -> str | None:
    """What the file says of itself, unless that cannot be."""
    with path.open("rb") as file:
        found = _META_CHARSET.search(file.read(1024))
    name = found[1].decode("ascii").lower() if found else ""
    if name in ("gb2312", "gbk", "x-gbk"):
        return "gb18030"
    try:
        bytes(range(256)).decode(name, errors="replace")
    except (LookupError, UnicodeError):
        return None
    return None if name.startswith("utf") else _WESTERN.get(codecs.lookup(name).name, name)


def _pdf(path: Path) -> Iterator[Readable]:
    from pypdf import PdfReader
    from pypdf.errors import PdfReadError, PyPdfError

    try:
        reader = PdfReader(path)
        if reader.is_encrypted and not reader.decrypt(""):
            raise UnreadableError("encrypted")
        title = str((reader.metadata and reader.metadata.title) or "")
        for page in reader.pages:
            yield Readable(" ".join(title.split()), page.extract_text())
    except (PdfReadError, PyPdfError, NotImplementedError) as error:
        raise UnreadableError("a damaged or unsupported PDF") from error


READERS: dict[str, Callable[[Path], Iterator[Readable]]] = {
    **dict.fromkeys((".txt", ".text"), _plain),
    **dict.fromkeys((".md", ".markdown"), _markdown),
    **dict.fromkeys((".html", ".htm", ".xhtml"), _html),
    ".pdf": _pdf,
}
