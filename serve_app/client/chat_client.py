"""A chat with a running server: a session of its API, and live turns on it. It prints nothing.

It needs no cookie. On a server without keys its chats belong to the owner of all who have none,
which lists no chats: a chat is found again by its uid alone, which is random, on any machine.
"""

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from serve_app.client.api import Api, ChatError
from serve_app.client.live_turn import PATIENCE_S, LiveTurn
from serve_app.client.turn_events import Done, TurnEvent

MAX_TITLE_CHARS = 60
_SESSIONS = "/v1/sessions"


@dataclass(frozen=True)
class PluginSwitch:
    """A plugin that the caller may use. All but `is_on` are the server's words."""

    name: str
    description: str
    is_on: bool


class ChatClient:
    """One chat at `url`; `clear` starts a new one, `join` goes on with another. `key` is an API
    key. A server that is lost in a turn is waited for `patience_s`.

    Raises ProxyError and ChatError, after which the chat can go on.
    """

    def __init__(self, url: str, key: str | None = None, patience_s: float = PATIENCE_S) -> None:
        self.api = Api(url, key)
        self.uid: str | None = None
        self.patience_s = patience_s
        self._last_turn: str | None = None
        self._plugins: list[str] | None = None  # None: all
        self._turn: LiveTurn | None = None

    def close(self) -> None:
        self.api.close()

    def check(self) -> None:
        """Raises ChatError unless a MOSS server answers."""
        self.api.ask("GET", "/livez")

    def clear(self) -> None:
        """The next turn starts a new chat, with the same plugins."""
        self.uid = self._last_turn = self._turn = None

    def join(self, uid: str) -> Generator[TurnEvent] | None:
        """Goes on with a stored chat. Returns the events of the turn that runs on it, if any."""
        session = self.api.ask("GET", f"{_SESSIONS}/{quote(_checked(uid), safe='')}")
        self.uid, self._last_turn = uid, session.get("active_turn")
        self._plugins, self._turn = session.get("plugins"), None
        if not session.get("running_turn"):
            return None
        return self._run(LiveTurn(self.api, self._session, id=str(session["running_turn"])))

    def ask(self, text: str, **options: Any) -> Generator[TurnEvent]:
        """The reply, event by event; `options` are further fields of the turn's body.

        Closing the generator leaves the turn running: `stop` ends it.
        """
        body = {"user": _checked(text), **options}
        if self.uid is None:
            self._create(text)
        yield from self._run(LiveTurn(self.api, self._session, f"{self._session}/turns", body))

    def regenerate(self, **options: Any) -> Generator[TurnEvent]:
        """Another reply in the place of the last one."""
        if self._last_turn is None:
            raise ChatError("there is no reply yet that could be made again")
        path = f"{self._session}/turns/{self._last_turn}/regenerate"
        yield from self._run(LiveTurn(self.api, self._session, path, options))

    def stop(self) -> str:
        """Ends the turn that runs, if one does, and keeps what it told.

        Returns the rest of the stored reply, which was not told before.
        """
        if self._turn is None or self._turn.has_ended:
            return ""
        turn, self._turn = self._turn, None
        if (done := turn.cancel()) is None:
            return ""
        self._last_turn = done.id
        return turn.rest_of(done.reply)

    def session(self) -> dict[str, Any]:
        """The chat as the server has it."""
        if self.uid is None:
            raise ChatError("there is no chat yet")
        return self.api.ask("GET", self._session)

    def plugins(self) -> list[PluginSwitch]:
        """All plugins that the caller may use."""
        listed = self.api.ask("GET", "/v1/plugins").get("data", [])
        on = self._plugins
        with self.api.errors():
            return [
                PluginSwitch(str(p["id"]), str(p["description"]), on is None or p["id"] in on)
                for p in listed
            ]

    def switch(self, names: Iterable[str], is_on: bool) -> None:
        """Switches plugins on or off for the turns to come."""
        switches = self.plugins()
        if unknown := sorted({*names} - {each.name for each in switches}):
            raise ChatError(f"there is no plugin {', '.join(unknown)}")
        enabled = [p.name for p in switches if (is_on if p.name in names else p.is_on)]
        plugins = None if len(enabled) == len(switches) else enabled
        if self.uid is not None:
            self.api.ask("PATCH", self._session, {"plugins": plugins})
        self._plugins = plugins

    @property
    def _session(self) -> str:
        return f"{_SESSIONS}/{self.uid}"

    def _create(self, text: str) -> None:
        title = text.strip().splitlines()[0][:MAX_TITLE_CHARS] if text.strip() else ""
        made = self.api.ask("POST", _SESSIONS, {"title": title, "plugins": self._plugins})
        with self.api.errors():
            self.uid = str(made["id"])

    def _run(self, turn: LiveTurn) -> Generator[TurnEvent]:
        turn.patience_s, self._turn = self.patience_s, turn
        for event in turn.events():
            if isinstance(event, Done):
                self._last_turn = event.id
            yield event


def _checked(text: str) -> str:
    """`text`, if it can be sent. Bytes in another encoding reach Python as lone surrogates."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ChatError("not sent: the text is not in the encoding of this terminal")
    return text
