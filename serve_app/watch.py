"""How somebody may watch requests for replies without being part of them.

A watch is entered around each request and called with each of its events; it sees by which
exception, if any, the request ends.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Watched:
    """What a watch is told of a request before it runs.

    `session_id` is "" for a stateless one. An earlier run has told some of it if it `is_resumed`.
    A request with a `stop` outlives its run, unless `stop` is set: where its events are left, even
    after the last one, somebody else goes on with it.
    """

    num_choices: int
    session_id: str = ""
    is_resumed: bool = False
    stop: asyncio.Event | None = None


Note = Callable[[Any], None]
Watch = Callable[[Watched], AbstractContextManager[Note]]


def unwatched(watched: Watched) -> AbstractContextManager[Note]:
    """The watch of nobody."""
    return nullcontext(_ignore)


def _ignore(event: Any) -> None:
    pass
