"""The protocol of a catalogue of sessions: chats as things that their owner lists and changes.

Turns are run elsewhere. Unknown and expired sessions and those of other owners are
indistinguishable.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Protocol

from serve_app.sessions.session import Feedback, Session, SessionSummary


@dataclass(frozen=True)
class SessionChanges:
    """What to change in a session; None leaves a field as it is.

    `active` is the id of the turn that the active path shall end with. `any_plugins` forgets the
    session's own choice of plugins.
    """

    title: str | None = None
    plugins: tuple[str, ...] | None = None
    any_plugins: bool = False
    defaults: Mapping[str, Any] | None = None
    active: str | None = None


@dataclass(frozen=True)
class SearchPage:
    """What a search has found in the chats that it has looked at, of which `last_uid` is the last:
    "" if there were none. It `has_more` if others follow, which it has not looked at."""

    lines: tuple[SessionSummary, ...] = ()
    last_uid: str = ""
    has_more: bool = False


class SessionCatalogue(Protocol):
    """Every step is atomic, checks the owner, and raises what the store's steps raise."""

    async def create(self, owner: str, changes: SessionChanges, deadline: float = inf) -> Session:
        """A new session without turns, with a uid that the server makes."""
        ...

    async def load(self, uid: str, owner: str, deadline: float = inf) -> Session | None:
        """The session if it belongs to `owner`, else None."""
        ...

    async def list_sessions(
        self, owner: str, limit: int, after: str = "", deadline: float = inf
    ) -> list[SessionSummary]:
        """At most `limit` of the owner's sessions, the one with the newest turn first.

        They follow the session `after`. Raises SessionNotFoundError if that one is not listed.
        Chats of unlisted owners are in no list.
        """
        ...

    async def search(
        self, owner: str, text: str, limit: int, after: str = "", deadline: float = inf
    ) -> SearchPage:
        """At most `limit` of those sessions that hold `text`, in any case of its letters: in the
        title, or in what the user or the model says in any turn. In the order of a list.

        It looks at a few hundred sessions at most; the next search may go on `after` the last.
        Raises SessionNotFoundError if that one is not listed.
        """
        ...

    async def patch(
        self, uid: str, owner: str, changes: SessionChanges, deadline: float = inf
    ) -> Session | None:
        """The changed session, None if the owner has no such one. Raises TurnNotFoundError."""
        ...

    async def delete(self, uid: str, owner: str, deadline: float = inf) -> bool:
        """Whether the owner had such a session, of which nothing is left.

        A turn that runs on it cannot be stored any more.
        """
        ...

    async def set_feedback(
        self, uid: str, owner: str, turn_id: str, feedback: Feedback, deadline: float = inf
    ) -> Session | None:
        """The session, whose turn has that feedback now; None if the owner has no such session.

        Empty feedback is none. Raises TurnNotFoundError.
        """
        ...

    def sessions(self, owner: str | None = None) -> AsyncIterator[Session]:
        """All sessions of the store, or of one owner, each once, in no order.

        For whoever runs the server: nobody's rights are checked. One that is made meanwhile may be
        left out.
        """
        ...
