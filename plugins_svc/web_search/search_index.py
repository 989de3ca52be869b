"""A full-text index over passages of the user's documents: SQLite FTS5 in memory.

FTS5 splits text at spaces, which Chinese does not use, so texts and queries are turned into words
and bigrams of CJK characters first. It indexes documents and opens no files.
"""

import re
import sqlite3
import threading
import unicodedata
from collections.abc import Iterable, Iterator

from plugins_svc.sdk.output import Item
from plugins_svc.web_search.documents import Document

MAX_PASSAGE_CHARS = 360  # quotes and escapes included, a passage then fits one item
MAX_QUERY_TERMS = 64

_CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_RUN = re.compile(rf"[{_CJK}]+|[^\W_{_CJK}]+")
_SENTENCE = re.compile(r"[^。！？!?.\n]*(?:[。！？!?.]+|\n|$)")


class SearchIndex:
    """Searchable passages. Several threads may add and search at a time."""

    def __init__(self, documents: Iterable[Document] = ()) -> None:
        self._lock = threading.Lock()
        self._database = sqlite3.connect(":memory:", check_same_thread=False)
        self._database.execute(
            "CREATE VIRTUAL TABLE passages USING fts5"
            "(title_terms, terms, title UNINDEXED, url UNINDEXED, passage UNINDEXED,"
            " tokenize='porter unicode61')"
        )
        for document in documents:
            self.add(document)

    def add(self, document: Document) -> int:
        """Makes `document` searchable; the number of its passages."""
        title_terms = " ".join(terms(document.title))
        rows = [
            (title_terms, " ".join(terms(passage)), document.title, document.url, passage)
            for passage in passages(document.text)
        ]
        with self._lock:
            self._database.executemany("INSERT INTO passages VALUES (?, ?, ?, ?, ?)", rows)
        return len(rows)

    def search(self, query: str, max_items: int) -> list[Item]:
        """The passages that match any term of `query`, best first by BM25."""
        wanted = list(dict.fromkeys(terms(query)))[:MAX_QUERY_TERMS]
        if not wanted:
            return []
        match = " OR ".join(f'"{term}"{"*" if len(term) == 1 else ""}' for term in wanted)
        with self._lock:
            rows = self._database.execute(
                "SELECT title, url, passage FROM passages WHERE passages MATCH ?"
                " ORDER BY rank LIMIT ?",
                (match, max_items),
            ).fetchall()
        return [Item(title, url, passage) for title, url, passage in rows]

    def close(self) -> None:
        """Free the index."""
        with self._lock:
            self._database.close()


def terms(text: str) -> Iterator[str]:
    """Words and CJK bigrams of `text` (a single CJK character is a term), folded to lower case."""
    for run in _RUN.findall(unicodedata.normalize("NFKC", text).casefold()):
        if re.match(f"[{_CJK}]", run) and len(run) > 1:
            yield from (run[i : i + 2] for i in range(len(run) - 1))
        else:
            yield run


def passages(text: str) -> Iterator[str]:
    """Passages of at most MAX_PASSAGE_CHARS, cut between sentences where possible."""
    passage = ""
    for piece in _pieces(text):
        if len(passage) + len(piece) > MAX_PASSAGE_CHARS:
            yield from _stripped(passage)
            passage = ""
        passage += piece
    yield from _stripped(passage)


def _pieces(text: str) -> Iterator[str]:
    """Sentences; one that is too long for a passage is split."""
    for sentence in _SENTENCE.finditer(text):
        for start in range(sentence.start(), sentence.end(), MAX_PASSAGE_CHARS):
            yield text[start : min(start + MAX_PASSAGE_CHARS, sentence.end())]


def _stripped(passage: str) -> list[str]:
    """`passage` with white space collapsed, as a list; empty when it holds nothing else."""
    folded = " ".join(passage.split())
    return [folded] if folded else []
