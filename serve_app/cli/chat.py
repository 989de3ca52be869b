"""`moss chat`: a chat in the terminal, with the words of MOSS's own demo."""

import click

from moss_tp.dialogue import MARKERS
from serve_app.client.chat_client import ChatClient, ChatError

HUMAN, MOSS = f"{MARKERS['human']} ", f"{MARKERS['moss']} "
GREETING = "Chat with MOSS. `clear` starts anew, `stop` quits; Ctrl-C breaks off a reply."


@click.command()
@click.option("--url", default="http://localhost:19324", show_default=True, help="The server.")
def command(url: str) -> None:
    """Chat with a running server in the terminal."""
    client = ChatClient(url)
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


def _read() -> str:
    """A line of the user's; the end of input, or Ctrl-C at the prompt, is `stop`."""
    try:
        return input(HUMAN).strip()
    except (EOFError, KeyboardInterrupt):
        click.echo()
        return "stop"


def _reply(client: ChatClient, text: str) -> None:
    """Shows a reply as it comes, or in one line why there is none."""
    pieces = client.ask(text)
    shown = MOSS
    try:
        for piece in pieces:
            click.echo(shown + piece, nl=False)
            shown = ""
        click.echo(shown)
    except ChatError as error:
        click.echo(f"{'' if shown else chr(10)}moss: {error}", err=True)
    except KeyboardInterrupt:
        click.echo(" (broken off)")
    finally:
        pieces.close()
