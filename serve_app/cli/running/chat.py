"""`moss chat`: a chat in the terminal, with the commands of MOSS's original demo.

A line that the terminal's encoding cannot read or show costs that line, never the chat.
"""

import io
import os
import sys

import click

from moss_tp.errors import MossError
from serve_app.api_secret import ENVIRONMENT
from serve_app.cli.running.commands import Commands
from serve_app.cli.running.keyboard import STOP, Read, is_terminal, make_editor, read_lines
from serve_app.cli.running.reply import show_reply
from serve_app.cli.running.rich_screen import RichScreen
from serve_app.cli.running.screen import PlainScreen, Screen
from serve_app.client.chat_client import ChatClient

DEFAULT_URL = "http://localhost:19324"
GREETING = "Chat with MOSS. `clear` starts a new chat, `stop` quits, Ctrl-C stops a reply, /help."


@click.command()
@click.option("--url", default=DEFAULT_URL, show_default=True, help="The server.")
@click.option("--chat", "uid", metavar="UID", help="Go on with this chat.")
def command(url: str, uid: str | None) -> None:
    """Chat with a running server in the terminal; MOSS_API_KEY is the key, if it needs one."""
    _tolerate_other_encodings()
    screen: Screen
    screen, read = (RichScreen(), make_editor()) if is_terminal() else (PlainScreen(), read_lines)
    client = ChatClient(url, os.environ.get(ENVIRONMENT))
    try:
        client.check()
        running = None if uid is None else client.join(uid)
        screen.show(GREETING)
        if running is not None:
            show_reply(client, running, screen)
        _talk(client, screen, read)
        if client.uid is not None:
            where = "" if url == DEFAULT_URL else f" --url {url}"
            screen.note(f"go on with this chat: moss chat{where} --chat {client.uid}")
    finally:
        client.close()


def _tolerate_other_encodings() -> None:
    """Bytes typed in another encoding become lone surrogates, which the client refuses to send; a
    character that the terminal cannot show becomes `?`."""
    for stream, errors in (
        (sys.stdin, "surrogateescape"),
        (sys.stdout, "replace"),
        (sys.stderr, "replace"),
    ):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def _talk(client: ChatClient, screen: Screen, read: Read) -> None:
    """Until `stop`, the end of input, or a Ctrl-C where nothing is told."""
    commands = Commands(client, screen)
    while (text := _read(read)) not in STOP:
        try:
            if text and not commands.run(text):
                show_reply(client, client.ask(text), screen)
        except MossError as error:
            screen.fail(str(error))
        except KeyboardInterrupt:
            screen.note("stopped")


def _read(read: Read) -> str:
    """The user's next input; `stop` at the end of input and on Ctrl-C."""
    try:
        return read().strip()
    except (EOFError, KeyboardInterrupt):
        click.echo()
        return "stop"
