"""What can be typed in a chat besides text for the model."""

import re
from collections.abc import Callable
from pathlib import Path

from serve_app.cli.running.reply import show_reply
from serve_app.cli.running.screen import Screen
from serve_app.cli.running.transcript import save
from serve_app.client.api import ChatError
from serve_app.client.chat_client import ChatClient

HELP = """\
clear                    start a new chat
stop                     quit; so do Ctrl-D and, where nothing is told, Ctrl-C
/regen                   another reply in the place of the last one
/plugins                 list the plugins
/plugins on|off NAME...  switch plugins on or off
/save FILE               write the chat to a new file: Markdown, or JSON if it ends with .json
/help                    this help
Ctrl-C stops a reply and keeps what was told of it.
Alt-Enter, or a backslash at the end of a line, goes on with another line."""

_COMMAND = re.compile(r"/[a-z]*(\s|\Z)")  # `/usr/bin` is text


class Commands:
    """The commands of one chat. They raise MossError, and KeyboardInterrupt on Ctrl-C."""

    def __init__(self, client: ChatClient, screen: Screen) -> None:
        self._client, self._screen = client, screen
        self._by_name: dict[str, Callable[[list[str]], None]] = {
            "clear": self._clear,
            "/clear": self._clear,
            "/regen": self._regenerate,
            "/plugins": self._plugins,
            "/save": self._save,
            "/help": self._help,
        }

    def run(self, text: str) -> bool:
        """Runs the command that `text` is. Returns False if it is none."""
        if text != "clear" and not _COMMAND.match(text):
            return False
        name, *arguments = text.split()
        if name not in self._by_name:
            raise ChatError(f"there is no command {name}: /help lists them")
        self._by_name[name](arguments)
        return True

    def _clear(self, arguments: list[str]) -> None:
        self._client.clear()
        self._screen.note("a new chat")

    def _regenerate(self, arguments: list[str]) -> None:
        show_reply(self._client, self._client.regenerate(), self._screen)

    def _plugins(self, arguments: list[str]) -> None:
        if arguments:
            state, *names = arguments
            if state not in ("on", "off") or not names:
                raise ChatError("it is: /plugins, or /plugins on|off NAME...")
            self._client.switch(names, state == "on")
        switches = self._client.plugins()
        for each in switches:
            state = "on " if each.is_on else "off"
            self._screen.note(f"{state} {each.name}: {each.description.removeprefix('- ')}")
        if not switches:
            self._screen.note("there are no plugins")

    def _save(self, arguments: list[str]) -> None:
        if not arguments:
            raise ChatError("it is: /save FILE")
        path = Path(" ".join(arguments))
        save(self._client.session(), path)
        self._screen.note(f"saved as {path}")

    def _help(self, arguments: list[str]) -> None:
        for line in HELP.splitlines():
            self._screen.show(line)
