"""`moss chat`: a chat in the terminal, with the commands of MOSS's original demo.

A line that the terminal's encoding cannot read or show costs that line, never the chat.
"""

import io
import os
import sys

import click

from moss_tp.dialogue import MARKERS
from serve_app.api_secret import ENVIRONMENT
from serve_app.client.chat_client import ChatClient, ChatError

HUMAN, MOSS = f"{MARKERS['human']} ", f"{MARKERS['moss']} "
GREETING = "Chat with MOSS. `clear` starts a new chat, `stop` quits, Ctrl-C stops a reply."


@click.command()
@click.option("--url", default="http://localhost:19324", show_default=True, help="The server.")
def command(url: str) -> None:
    """Chat with a running server in the terminal; MOSS_API_KEY is the key, if it needs one."""
    _tolerate_other_encodings()
    client = ChatClient(url, os.environ.get(ENVIRONMENT))
    try:
        client.check()
        click.echo(GREETING)
        while (text := _read()) != "stop":
            if text == "clear":
                client.clear()
                click.echo("(a new chat)")
            elif text:
                _reply(client, text)
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


def _read() -> str:
    """The user's next line; `stop` at the end of input and on Ctrl-C."""
    try:
        return input(HUMAN).strip()
    except (EOFError, KeyboardInterrupt):
        click.echo()
        return "stop"


def _reply(client: ChatClient, text: str) -> None:
    """Prints the reply as it comes, or one line about why there is none."""
    pieces = client.ask(text)
    prefix = MOSS
    try:
        for piece in pieces:
            click.echo(prefix + piece, nl=False)
            prefix = ""
        click.echo(prefix)
    except ChatError as error:
        click.echo(f"{'' if prefix else chr(10)}moss: {error}", err=True)
    except KeyboardInterrupt:
        click.echo(" (stopped)")
    finally:
        pieces.close()
