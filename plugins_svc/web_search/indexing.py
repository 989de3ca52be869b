"""Reads a directory of documents into an index, in a thread and a process of its own.

A plugin can answer from what is there while a large directory is still being read.
"""

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

from plugins_svc.web_search.documents import Document, find_documents, shown
from plugins_svc.web_search.encodings import UnreadableError
from plugins_svc.web_search.reader_process import ReaderProcess
from plugins_svc.web_search.report import IndexReport
from plugins_svc.web_search.search_index import SearchIndex

MAX_CHARS = 2**26  # of all documents: the index is in memory, and several times as large
MAX_SHARE = 4  # one file gets at most this fraction of it

logger = logging.getLogger(__name__)


class Indexing:
    """Starts at once. `report` grows until `wait` returns True."""

    def __init__(self, directory: Path, index: SearchIndex, max_chars: int = MAX_CHARS) -> None:
        self.report = IndexReport(directory)
        self._directory = directory
        self._index = index
        self._max_chars = max_chars
        self._num_chars = 0
        self._process = ReaderProcess()
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="moss-documents", daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Whether all documents have been read, after at most `timeout_s`."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def close(self) -> None:
        """Stops reading. May be called again."""
        self._is_closing.set()
        self._process.close()
        self._thread.join()

    def _run(self) -> None:
        try:
            for path in find_documents(self._directory, self.report.leave_out):
                if self._is_closing.is_set():
                    return
                self._read(path)
            self.report.is_complete = True
            log = logger.warning if self.report.has_gaps else logger.info
            log("web search: %s", self.report.line())
        except Exception:
            self.report.has_stopped = True
            logger.exception("web search stopped reading documents")
        finally:
            self._process.close()

    def _read(self, path: Path) -> None:
        """Indexes one file, or says why not; in part, if it breaks off."""
        num_passages = 0
        try:
            for document in self._parts(path):
                num_passages += self._index.add(document)
        except UnreadableError as error:
            self.report.leave_out(path, f"{error} (read in part)" if num_passages else str(error))
        except Exception as error:  # of the machine, such as no more processes: the next may do
            logger.warning("web search could not read %s", path, exc_info=True)
            self.report.leave_out(path, f"not read ({type(error).__name__})")
        else:
            if not num_passages:
                self.report.leave_out(path, "no text")
        self.report.num_documents += num_passages > 0
        self.report.num_passages += num_passages

    def _parts(self, path: Path) -> Iterator[Document]:
        """The parts of one file; UnreadableError for those that do not fit into the index."""
        if self._num_chars >= self._max_chars:
            raise UnreadableError("the index is full")
        file_end = self._num_chars + self._max_chars // MAX_SHARE
        for title, text, guess in self._process.read(path):
            if guess:
                self.report.read_as(path, guess)
            if self._num_chars + len(text) > min(file_end, self._max_chars):
                is_large = file_end < self._max_chars
                self._num_chars = self._num_chars if is_large else self._max_chars
                raise UnreadableError("too much text" if is_large else "the index is full")
            self._num_chars += len(text)
            yield self._document(path, title, text)

    def _document(self, path: Path, title: str, text: str) -> Document:
        url = shown(path.relative_to(self._directory))
        return Document(_clean(title) or Path(url).stem, url, _clean(text))


def _clean(text: str) -> str:
    """`text` without lone surrogates, which a PDF may hold and no database takes."""
    return text.encode("utf-8", errors="replace").decode("utf-8")
