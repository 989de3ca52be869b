"""Shows one reply of a chat, from its first event to its end, an error, or a Ctrl-C."""

from collections.abc import Generator, Mapping
from typing import Any

from serve_app.cli.running.screen import Screen
from serve_app.cli.running.untrusted import one_line
from serve_app.client.api import ChatError
from serve_app.client.chat_client import ChatClient
from serve_app.client.citations import source_lines
from serve_app.client.turn_events import (
    Delta,
    Done,
    PluginCall,
    Reset,
    Thoughts,
    TurnEvent,
    Waiting,
)

MAX_OUTPUT_CHARS = 200  # of a plugin


def show_reply(client: ChatClient, events: Generator[TurnEvent], screen: Screen) -> None:
    """Shows `events`, a turn of `client`. A Ctrl-C ends the turn and keeps what it told."""
    screen.begin()
    shown = _Reply(client, screen)
    try:
        for event in events:
            shown.take(event)
    except ChatError as error:
        screen.cut()
        screen.fail(str(error))
    except KeyboardInterrupt:
        events.close()
        _stop(client, screen)
    finally:
        events.close()


def _stop(client: ChatClient, screen: Screen) -> None:
    try:
        screen.text(client.stop())
        screen.end(" (stopped)")
    except (ChatError, KeyboardInterrupt) as error:
        screen.end(" (stopped)")
        reason = str(error) or "interrupted"
        screen.fail(f"the server may go on with it, for it could not be told to stop: {reason}")


class _Reply:
    """What has come of a reply."""

    def __init__(self, client: ChatClient, screen: Screen) -> None:
        self._url, self._screen = client.api.url, screen
        self._items: list[Mapping[str, Any]] = []
        self._is_waiting = False

    def take(self, event: TurnEvent) -> None:
        screen = self._screen
        match event:
            case Waiting(reason):
                self._wait(reason)
                return
            case Thoughts(text) if text.strip():
                screen.aside(f"thinks: {text.strip()}")
            case PluginCall():
                self._call(event)
            case Delta(text):
                screen.text(text)
            case Reset():
                screen.cut()
                screen.aside("the reply is another one now; this is all of it")
            case Done():
                screen.end()
                if sources := "\n".join(source_lines(event.reply, self._items)):
                    screen.aside(sources)
        self._is_waiting = False

    def _wait(self, reason: str) -> None:
        """Says so once, however often the server is asked in vain."""
        if not self._is_waiting:
            self._screen.aside(f"waiting for the server, Ctrl-C gives up: {reason}")
        self._is_waiting = True
        self._screen.status("waiting for the server")

    def _call(self, call: PluginCall) -> None:
        asked = f'{call.name}("{one_line(call.argument)}")'
        if call.state == "started":
            self._screen.status(asked)
            return
        seconds = "" if call.ms is None else f", {call.ms / 1000:.1f} s"
        self._screen.aside(f"{asked} -> {self._output(call)}{seconds}")

    def _output(self, call: PluginCall) -> str:
        if call.state == "failed" or call.output is None:
            return "no result"
        if isinstance(call.output, str):
            text = one_line(call.output)
            return text if len(text) <= MAX_OUTPUT_CHARS else f"{text[:MAX_OUTPUT_CHARS]}..."
        pictures = [item for item in call.output if "media_type" in item]
        if pictures:
            return " ".join(f"{self._url}{picture['url']}" for picture in pictures)
        self._items += call.output
        return f"{len(call.output)} found"
