"""The JSON of lists of chats: whole ones, page after page, and what a search has found."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, Field

from serve_app.sessions.catalogue import SearchPage
from serve_app.sessions.session import SessionSummary

MAX_LISTED = 100
_MAX_SEARCH = 200  # characters


class ListQuery(BaseModel):
    """The query of `GET /v1/sessions`; `after` is the last id of the page before.

    With `search` only chats are listed whose title or texts hold it, in any case of its letters.
    """

    limit: int = Field(20, ge=1, le=MAX_LISTED)
    after: str = Field("", max_length=64)
    search: str = Field("", max_length=_MAX_SEARCH)


class SessionLine(BaseModel):
    """A line of a list of chats."""

    id: str
    object: Literal["session"] = "session"
    title: str
    created_at: int
    updated_at: int
    num_turns: int


class SessionList(BaseModel):
    """A page of the caller's chats, the one with the newest turn first.

    The `last_id` of a search is that of the last chat that it has looked at, whether it was found
    or not; it `has_more` if it has not looked at all of them.
    """

    object: Literal["list"] = "list"
    data: list[SessionLine]
    first_id: str | None
    last_id: str | None
    has_more: bool


def session_list(found: list[SessionSummary], limit: int) -> SessionList:
    """A page of `limit` sessions, of which one more was asked for."""
    page = found[:limit]
    return _list(page, page[-1].uid if page else "", len(found) > limit)


def search_list(found: SearchPage) -> SessionList:
    """A page of what a search has found."""
    return _list(found.lines, found.last_uid, found.has_more)


def _list(page: Sequence[SessionSummary], last_uid: str, has_more: bool) -> SessionList:
    return SessionList(
        data=[
            SessionLine(
                id=line.uid,
                title=line.title,
                created_at=line.created_ms // 1000,
                updated_at=line.updated_ms // 1000,
                num_turns=line.num_turns,
            )
            for line in page
        ],
        first_id=page[0].uid if page else None,
        last_id=last_uid or None,
        has_more=has_more,
    )
