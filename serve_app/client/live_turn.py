"""One live turn, read to its end however often the connection breaks or the server dies.

    POST … ──lost──> POST again, with the same Idempotency-Key
       └──broken──> GET …/events, after the last event ──broken──> …

A server that is away is asked again, at growing intervals, until it was silent for too long.
"""

import secrets
import time
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from serve_app.client.api import Api, ChatError, LostError, RefusedError, UnreachableError
from serve_app.client.sse import ServerSentEvent
from serve_app.client.turn_events import (
    Begun,
    Delta,
    Done,
    Failed,
    Reset,
    TurnEvent,
    Waiting,
    read_done,
    read_event,
)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 5.0
PATIENCE_S = 300.0  # a large model takes minutes to load
_AWAY = {429, 502, 503, 504}
# What answers before the application does: it has no codes.
_NOT_YET = {404, 500}
# The server could not say whether it has started the turn.
_UNKNOWN = {"store_unavailable", "turn_not_stored"}


@dataclass
class Patience:
    """How long to wait for a server: pauses double up to a limit, and their sum has one, too."""

    limit_s: float = PATIENCE_S
    _pause_s: float = field(default_factory=lambda: FIRST_PAUSE_S)
    _spent_s: float = 0.0

    @property
    def is_over(self) -> bool:
        return self._spent_s >= self.limit_s

    def wait(self) -> None:
        time.sleep(self._pause_s)
        self._spent_s += self._pause_s
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)


@dataclass
class LiveTurn:
    """A turn of the session at the path `session`.

    It is started by posting `body` to `path`; without a path it runs already, as `id`. `text` is
    the reply as far as it was told.
    """

    api: Api
    session: str
    path: str = ""
    body: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""
    text: str = ""
    patience_s: float = PATIENCE_S
    key: str = field(default_factory=lambda: secrets.token_hex(16))
    has_ended: bool = False
    _last: int = -1  # the number of the last event
    _is_retold: bool = False

    def events(self) -> Generator[TurnEvent]:
        """Thoughts, calls, deltas; a Waiting whenever the server is lost; and Done.

        Raises ChatError for a turn that has failed, was refused, or could not be followed.
        """
        patience, was_lost = Patience(self.patience_s), False
        while True:
            try:
                for event in self._connection():
                    patience = Patience(self.patience_s)
                    yield from self._told(event)
                    if self.has_ended:
                        return
                raise LostError("the connection closed before the reply was complete")
            except ChatError as error:
                if not _is_away(error, was_lost) or patience.is_over:
                    raise
                was_lost = True
                yield Waiting(str(error))
            patience.wait()

    def cancel(self) -> Done | None:
        """Ends the turn, and keeps what it told: what is stored now, if anything is.

        Raises ChatError.
        """
        self.id = self.id or self._running()
        if not self.id:
            return None
        answer = self.api.ask("POST", f"{self.session}/turns/{self.id}/cancel", {"keep": True})
        with self.api.errors():
            return None if answer.get("turn") is None else read_done(answer)

    def rest_of(self, reply: str) -> str:
        """What was not told of the whole `reply`."""
        return reply.removeprefix(self.text) if reply.startswith(self.text) else ""

    def _connection(self) -> Generator[TurnEvent]:
        """The events that this one connection brings."""
        try:
            with self._open() as stream:
                for each in stream:
                    if (event := self._read(each)) is not None:
                        yield event
        except RefusedError as error:
            if error.code != "idempotency_in_progress":
                raise
            self.id = self._running()  # it was started by the request whose answer was lost
            raise LostError(str(error)) from error

    def _open(self) -> AbstractContextManager[Any]:
        if self.id:
            after = {"Last-Event-ID": str(self._last)} if self._last >= 0 else {}
            return self.api.stream("GET", f"{self.session}/turns/{self.id}/events", headers=after)
        key = {"Idempotency-Key": self.key}
        return self.api.stream("POST", self.path, {**self.body, "stream": True}, key)

    def _read(self, told: ServerSentEvent) -> TurnEvent | None:
        """None for an event that was told before, or of a kind that is of no use here."""
        number = int(told.last_id or -1)
        event = read_event(told.type, told.data)
        if number > self._last:
            self._last = number
            return event
        if isinstance(event, Failed):  # of this connection, not of the turn
            kind = LostError if event.kind == "server_error" else ChatError
            raise kind(event.message)
        return None

    def _told(self, event: TurnEvent) -> Generator[TurnEvent]:
        """What a reader gets of it. A turn told anew goes on where the text was, if it can."""
        match event:
            case Begun(id):
                self.id = id
            case Failed(message):
                self.has_ended = True
                raise ChatError(message)
            case Reset():
                self._is_retold = True
            case Delta(text):
                yield from self._piece(text)
            case Done():
                self.has_ended, self.id = True, event.id
                yield event
            case _:
                yield event

    def _piece(self, text: str) -> Generator[TurnEvent]:
        if self._is_retold:
            self._is_retold = False
            if text.startswith(self.text):
                text = text.removeprefix(self.text)
            else:
                self.text = ""
                yield Reset()
        self.text += text
        if text:
            yield Delta(text)

    def _running(self) -> str:
        """The id of the turn that runs on the session; "" for none."""
        return str(self.api.ask("GET", self.session).get("running_turn") or "")


def _is_away(error: ChatError, was_lost: bool) -> bool:
    """Whether the turn may run, or will, for all that `error` came, and another one before it if
    it `was_lost`."""
    if isinstance(error, RefusedError):
        if error.code in _UNKNOWN:
            return True
        is_not_yet = error.status in _NOT_YET and not error.code
        return was_lost and (error.status in _AWAY or is_not_yet)
    if isinstance(error, UnreachableError):
        return was_lost
    return isinstance(error, LostError)
