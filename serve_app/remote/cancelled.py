"""Tells a call that the remote side cancelled from one that its caller did."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from serve_app.streams import is_being_cancelled


@contextmanager
def cancelled_remotely(error: Exception) -> Iterator[None]:
    """Raises `error` if the remote side was cancelled, which Serve reports as CancelledError."""
    try:
        yield
    except asyncio.CancelledError as cancelled:
        if is_being_cancelled():
            raise
        raise error from cancelled
