"""Replies as HTML in answers: whether they are asked for, and where they stand.

It renders nothing.
"""

from collections.abc import Iterator, Mapping
from typing import Literal

from pydantic import BaseModel

from serve_app.api.queries import query_types
from serve_app.api.sessions import SessionAnswer, TurnAnswer


class RenderQuery(BaseModel):
    """The query of what can have replies as HTML, too."""

    render: Literal["html"] | None = None

    @property
    def is_html(self) -> bool:
        return self.render == "html"


RENDER = query_types(RenderQuery)


def replies(answer: SessionAnswer) -> list[str]:
    """The replies in it, those first that a reader sees first: the newest of the active path."""
    return [turn.reply for turn in reversed([*(answer.tree or ()), *answer.turns])]


def with_html(answer: SessionAnswer, blocks: Mapping[str, list[str]]) -> SessionAnswer:
    """`answer` with the blocks of its replies, by their text."""
    for turn in _turns(answer):
        turn.html = blocks[turn.reply]
    return answer


def _turns(answer: SessionAnswer) -> Iterator[TurnAnswer]:
    yield from answer.turns
    yield from answer.tree or ()
