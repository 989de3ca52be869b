"""Web search: answers MOSS's `Search` from a directory of the user's .txt and .md documents.

The directory is read once, when the plugin starts; nothing is fetched. Snippets may be written by
strangers, so they must be neutralised before the model sees them.
"""

import asyncio
from pathlib import Path

from plugins_svc.sdk.errors import PluginError
from plugins_svc.sdk.output import PluginOutput
from plugins_svc.web_search.documents import read_documents
from plugins_svc.web_search.search_index import SearchIndex

MAX_ITEMS = 3  # of one search


class WebSearch:
    """Answers `Search("query")` with the passages that match best."""

    def __init__(self, documents_dir: Path) -> None:
        """Reads the documents; PluginError when there is no such directory."""
        if not documents_dir.is_dir():
            raise PluginError(f"no such directory of documents: {documents_dir}")
        self._index = SearchIndex(read_documents(documents_dir))

    async def run(self, argument: str) -> PluginOutput:
        """At most MAX_ITEMS passages; no result when nothing matches."""
        found = await asyncio.to_thread(self._index.search, argument, MAX_ITEMS)
        return PluginOutput(True, items=tuple(found)) if found else PluginOutput.no_result()

    async def check(self) -> None:
        """Does nothing: an index that was read is whole."""

    def close(self) -> None:
        """Free the index."""
        self._index.close()
