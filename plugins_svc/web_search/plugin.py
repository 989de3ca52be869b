"""Web search: answers MOSS's `Search` from a directory of the user's documents.

The directory is read once, from when the plugin starts; nothing is fetched. Snippets may be written
by strangers, so they must be neutralised before the model sees them.
"""

import asyncio
from contextlib import suppress
from pathlib import Path

from plugins_svc.sdk.errors import PluginError
from plugins_svc.sdk.output import PluginOutput
from plugins_svc.web_search.indexing import Indexing
from plugins_svc.web_search.search_index import SearchIndex

MAX_ITEMS = 3  # of one search
POLL_S = 0.05
START_WAIT_S = 2.0  # of a search for the rest of the documents; then it takes what is there


class WebSearch:
    """Answers `Search("query")` with the passages that match best."""

    def __init__(self, documents_dir: Path) -> None:
        """Begins to read the documents; PluginError when there is no such directory."""
        if not documents_dir.is_dir():
            raise PluginError(f"no such directory of documents: {documents_dir}")
        self._index = SearchIndex()
        self._indexing = Indexing(documents_dir, self._index)

    async def ready(self) -> str:
        """Waits until all documents are read; what was read, and what was left out and why."""
        while not self._indexing.wait(0):
            await asyncio.sleep(POLL_S)
        return f"web search: {self._indexing.report.line()}"

    async def run(self, argument: str) -> PluginOutput:
        """At most MAX_ITEMS passages; no result when nothing matches."""
        with suppress(TimeoutError):  # on the loop: a thread each would leave none for others
            async with asyncio.timeout(START_WAIT_S):
                await self.ready()
        found = await asyncio.to_thread(self._index.search, argument, MAX_ITEMS)
        return PluginOutput(True, items=tuple(found)) if found else PluginOutput.no_result()

    async def check(self) -> None:
        """PluginError when reading has ended with an error. An index that was read is whole."""
        if self._indexing.report.has_stopped:
            raise PluginError(f"web search {self._indexing.report.line()}")

    def close(self) -> None:
        """Free the index."""
        self._indexing.close()
        self._index.close()
