"""Counts launches: each wrapper reports its own, also where it runs the reference."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_counts: ContextVar[Counter[str] | None] = ContextVar("counts", default=None)


def count_launch(name: str) -> None:
    counts = _counts.get()
    if counts is not None:
        counts[name] += 1


@contextmanager
def counted_launches() -> Iterator[Counter[str]]:
    """Launches by the kernel's name, of this thread, while the context is active."""
    counts: Counter[str] = Counter()
    token = _counts.set(counts)
    try:
        yield counts
    finally:
        _counts.reset(token)
