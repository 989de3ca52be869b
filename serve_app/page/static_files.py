"""The files of the page, as they are when the server starts: read once, and sent as they are."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePath

INDEX = "index.html"
# Written down: what a machine's own table says of `.js` differs.
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True)
class StaticFile:
    """One file, and its `etag` of HTTP: another one for other content."""

    content: bytes
    media_type: str
    etag: str


def read_static_files() -> Mapping[str, StaticFile]:
    """The files by name. Raises KeyError for one of a type that the page has not got."""
    return {
        each.name: _static_file(each.name, each.read_bytes())
        for each in files("serve_app.page").joinpath("static").iterdir()
    }


def _static_file(name: str, content: bytes) -> StaticFile:
    digest = hashlib.sha256(content).hexdigest()[:32]
    return StaticFile(content, _MEDIA_TYPES[PurePath(name).suffix], f'"{digest}"')
