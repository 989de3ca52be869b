"""`moss status`: what a running server does now, as a table or as JSON."""

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from serve_app.api_secret import ENVIRONMENT
from serve_app.cli.table import table_lines
from serve_app.client.server_state import server_state

READY, NOT_READY = 0, 1
_HEADER = ("replica", "state", "ranks", "running", "waiting", "KV blocks", "next waits")
_UNKNOWN = "-"


@click.command()
@click.option("--url", default="http://localhost:19324", show_default=True, help="The server.")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object.")
def command(url: str, is_json: bool) -> None:
    """Show replicas, ranks, queues, running turns and the store of a server.

    Exits with 0 if it takes requests, else 1. MOSS_API_KEY is an administrator's key, if keys are
    needed; without one it shows less.
    """
    state = server_state(url, os.environ.get(ENVIRONMENT))
    for line in [json.dumps(state, ensure_ascii=False)] if is_json else lines(state):
        click.echo(line)
    sys.exit(READY if state["ready"] else NOT_READY)


def lines(state: Mapping[str, Any]) -> Iterator[str]:
    """For people: the server, a line for each group, then what all have together."""
    ready = "ready" if state["ready"] else "not ready: it takes no requests now"
    yield f"{state['url']}  {state['model']} (moss {state['version']})  {ready}"
    replicas = {each.get("replica"): each for each in state["replicas"] or ()}
    rows = [_row(group, replicas.get(group["replica"], {})) for group in state["groups"]]
    yield from table_lines([_HEADER, *rows]) if rows else ["no group loads the model"]
    if state["replicas"] is None:
        yield f"set {ENVIRONMENT} to an administrator's key to see more"
        return
    turns = state["running_turns"]
    yield f"sessions with a running turn: {_UNKNOWN if turns is None else turns}"
    yield f"session store: {'answers' if state['store'] else 'does not answer'}"


def _row(group: Mapping[str, Any], stats: Mapping[str, Any]) -> Sequence[str]:
    def shown(name: str) -> str:
        return str(stats.get(name, _UNKNOWN))

    wait_s = stats.get("expected_wait_s")
    return (
        group["replica"] or _UNKNOWN,
        _state(group),
        _ranks(group, stats),
        shown("running"),
        shown("waiting"),
        _blocks(stats),
        _UNKNOWN if wait_s is None else f"{wait_s:.1f} s",
    )


def _state(group: Mapping[str, Any]) -> str:
    phase = group.get("phase")
    return f"{group['state']} ({phase})" if phase else str(group["state"])


def _ranks(group: Mapping[str, Any], stats: Mapping[str, Any]) -> str:
    """How many, and their process ids."""
    if group["ranks"] is None:
        return _UNKNOWN
    pids = ", ".join(map(str, stats.get("rank_pids", ())))
    return f"{group['ranks']} ({pids})" if pids else str(group["ranks"])


def _blocks(stats: Mapping[str, Any]) -> str:
    """Those that running passes hold, of all."""
    if "num_blocks" not in stats:
        return _UNKNOWN
    return f"{stats['num_blocks'] - stats['free_blocks']} of {stats['num_blocks']}"
