"""`moss replay`: has a running server make a stored turn again, and compares the bytes."""

import os
import sys
from typing import Any

import click
import httpx

from moss_tp.errors import MossError
from serve_app.client.connect import http_client

CONNECT_S = 5
SAME, OTHER_BYTES, OTHER_MAKE_UP = 0, 1, 2


class ReplayError(MossError):
    """The server did not make the turn again."""


@click.command()
@click.argument("uid")
@click.argument("turn")
@click.option("--url", default="http://localhost:19324", show_default=True, help="The server.")
def command(uid: str, turn: str, url: str) -> None:
    """Make a stored TURN of the chat UID again, and compare it with what is stored.

    Exits with 0 if all bytes are the same, 1 if not, and 2 if the turn was made of something
    else: other weights, code or settings. MOSS_API_KEY is an administrator's key, if keys are
    needed, and the chat is one of its owner's.
    """
    sys.exit(report(_replay(url, uid, turn)))


def report(answer: dict[str, Any]) -> int:
    """Prints what came of it; returns the exit status."""
    for name, (then, now) in answer["differences"].items():
        click.echo(f"{name}: {then} then, {now} now")
    if answer["differences"]:
        click.echo("the turn was made of something else, so it was not made again")
        return OTHER_MAKE_UP
    if answer["changed"]:
        click.echo(f"not the same: {', '.join(answer['changed'])}")
        return OTHER_BYTES
    click.echo("the same bytes")
    return SAME


def _replay(url: str, uid: str, turn: str) -> dict[str, Any]:
    key = os.environ.get("MOSS_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    path = f"{url}/v1/sessions/{uid}/turns/{turn}/replay"
    try:
        with http_client(url, CONNECT_S) as client:
            response = client.post(path, headers=headers)
            answer: dict[str, Any] = response.json()
    except (httpx.HTTPError, ValueError) as error:
        raise ReplayError(f"{url} does not answer: {error}") from error
    if response.status_code != 200:
        raise ReplayError(answer.get("error", {}).get("message", "the server refuses"))
    return answer
