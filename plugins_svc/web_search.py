"""The search plugin: MOSS's `Search`, over a directory of the user's .txt and .md documents.

The directory is read once, when the plugin starts; nothing is ever fetched. Snippets are what
strangers may have written: results.py keeps them from posing as structure.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

from plugins_svc.errors import PluginError
from plugins_svc.protocol.results import MAX_ITEMS
from plugins_svc.sdk.output import PluginOutput
from plugins_svc.search_index import Document, SearchIndex

SUFFIXES = {".txt", ".md"}
MAX_FILE_BYTES = 4 * 2**20
MAX_QUERY_CHARS = 1000


class WebSearch:
    """Answers `Search("query")` with the passages that match best."""

    name = "web_search"
    call_name = "Search"

    def __init__(self, documents_dir: Path) -> None:
        if not documents_dir.is_dir():
            raise PluginError(f"no such directory of documents: {documents_dir}")
        self._index = SearchIndex(read_documents(documents_dir))

    async def run(self, argument: str) -> PluginOutput:
        """At most MAX_ITEMS passages; no result when nothing matches."""
        query = argument[:MAX_QUERY_CHARS]
        found = await asyncio.to_thread(self._index.search, query, MAX_ITEMS)
        return PluginOutput(True, items=tuple(found)) if found else PluginOutput.no_result()

    def close(self) -> None:
        """Free the index."""
        self._index.close()


def read_documents(directory: Path) -> Iterator[Document]:
    """Every document below `directory`, at most MAX_FILE_BYTES of each.

    Symbolic links are left out: they could lead out of what the user meant to share.
    """
    for path in sorted(directory.rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                text = file.read(MAX_FILE_BYTES).decode("utf-8", errors="replace")
            yield Document(path.stem, path.relative_to(directory).as_posix(), text)
