"""A full-text index over passages of the user's own documents: SQLite FTS5 in memory.

FTS5 splits on spaces, which Chinese has none of: so texts and queries are turned into words and
bigrams of CJK characters before SQLite sees them. It knows files only as (title, text).
"""

import re
import sqlite3
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from plugins_svc.sdk.output import Item

MAX_PASSAGE_CHARS = 360  # with its quotes and escapes still one whole search item
MAX_QUERY_TERMS = 64

_CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_RUN = re.compile(rf"[{_CJK}]+|[^\W_{_CJK}]+")
_SENTENCE = re.compile(r"[^。！？!?.\n]*(?:[。！？!?.]+|\n|$)")


@dataclass(frozen=True)
class Document:
    """A document to be searched. `url` is where a person finds it, or empty."""

    title: str
    url: str
    text: str


class SearchIndex:
    """Passages and what finds them. Reading it from several threads is safe."""

    def __init__(self, documents: Iterable[Document]) -> None:
        self._database = sqlite3.connect(":memory:", check_same_thread=False)
        self._database.execute(
            "CREATE VIRTUAL TABLE passages USING fts5"
            "(title_terms, terms, title UNINDEXED, url UNINDEXED, passage UNINDEXED,"
            " tokenize='porter unicode61')"
        )
        rows = (
            (" ".join(terms(d.title)), " ".join(terms(passage)), d.title, d.url, passage)
            for d in documents
            for passage in passages(d.text)
        )
        self._database.executemany("INSERT INTO passages VALUES (?, ?, ?, ?, ?)", rows)

    def search(self, query: str, max_items: int) -> list[Item]:
        """The passages that match any term of `query`, best first by BM25."""
        wanted = list(dict.fromkeys(terms(query)))[:MAX_QUERY_TERMS]
        if not wanted:
            return []
        match = " OR ".join(f'"{term}"{"*" if len(term) == 1 else ""}' for term in wanted)
        rows = self._database.execute(
            "SELECT title, url, passage FROM passages WHERE passages MATCH ? ORDER BY rank LIMIT ?",
            (match, max_items),
        )
        return [Item(title, url, passage) for title, url, passage in rows]

    def close(self) -> None:
        """Free the index."""
        self._database.close()


def terms(text: str) -> Iterator[str]:
    """Words and CJK bigrams (a lone CJK character stands for itself), letters and digits only."""
    for run in _RUN.findall(unicodedata.normalize("NFKC", text).casefold()):
        if re.match(f"[{_CJK}]", run) and len(run) > 1:
            yield from (run[i : i + 2] for i in range(len(run) - 1))
        else:
            yield run


def passages(text: str) -> Iterator[str]:
    """Pieces of at most MAX_PASSAGE_CHARS, cut between sentences where there are any."""
    passage = ""
    for piece in _pieces(text):
        if len(passage) + len(piece) > MAX_PASSAGE_CHARS:
            yield from _stripped(passage)
            passage = ""
        passage += piece
    yield from _stripped(passage)


def _pieces(text: str) -> Iterator[str]:
    """Sentences; one that is too long for a passage comes in parts that are not."""
    for sentence in _SENTENCE.finditer(text):
        for start in range(sentence.start(), sentence.end(), MAX_PASSAGE_CHARS):
            yield text[start : min(start + MAX_PASSAGE_CHARS, sentence.end())]


def _stripped(passage: str) -> list[str]:
    """`passage` with its white space folded; nothing when that was all."""
    folded = " ".join(passage.split())
    return [folded] if folded else []
