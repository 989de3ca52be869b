"""`moss keys`: adds, lists and revokes API keys, beside a running server or without one.

A new key is printed once, alone on stdout; what is stored cannot be turned back into it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import click

from moss_tp.errors import ConfigError
from serve_app.access.api_key import ApiKey, make_key
from serve_app.access.key_book import Entry, KeyBook
from serve_app.access.principal import Limits
from serve_app.cli.stored.location import located_store, store_options
from serve_app.cli.table import table_lines

T = TypeVar("T")


class _Names(click.ParamType[tuple[str, ...]]):
    """Names with commas between; an empty text is no name at all."""

    name = "names"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        return tuple(name.strip() for name in str(value).split(",") if name.strip())


@click.group()
def command() -> None:
    """Make, list and revoke API keys."""


@command.command()
@click.option("--owner", required=True, help="Whose chats it leads to; keys may share an owner.")
@click.option("--name", default="", help="What it is for, for your eyes only.")
@click.option("--models", type=_Names(), metavar="A,B", help="Models it may use. Default: all.")
@click.option("--plugins", type=_Names(), metavar="A,B", help="Plugins it may use. Default: all.")
@click.option("--admin", is_flag=True, help="It may also call the operators' endpoints.")
@click.option("--requests-per-s", type=click.FloatRange(0, min_open=True), metavar="N")
@click.option("--tokens-per-min", type=click.IntRange(1), metavar="N", help="Prompts and replies.")
@click.option("--running-turns", type=click.IntRange(1), metavar="N", help="At the same time.")
@store_options
def add(
    owner: str,
    name: str,
    models: tuple[str, ...] | None,
    plugins: tuple[str, ...] | None,
    admin: bool,
    requests_per_s: float | None,
    tokens_per_min: int | None,
    running_turns: int | None,
    store: str,
    data_dir: Path,
) -> None:
    """Make a key of OWNER and print it, this once."""
    limits = Limits(requests_per_s, tokens_per_min, running_turns)
    key, secret = make_key(owner, name, models, plugins, admin, limits)
    with located_store(store, data_dir, may_create=True) as url:
        _run(url, lambda book: book.add(key))
    click.echo(f"moss: key {key.id} of {owner}; it is shown only now", err=True)
    click.echo(secret)


@command.command(name="list")
@store_options
def list_keys(store: str, data_dir: Path) -> None:
    """List all keys, those that were revoked, too."""
    with located_store(store, data_dir) as url:
        entries = _run(url, lambda book: book.entries())
    for line in table_lines([_HEADER, *map(_row, entries)]):
        click.echo(line)


@command.command()
@click.argument("key_id", metavar="ID")
@store_options
def revoke(key_id: str, store: str, data_dir: Path) -> None:
    """End the key with that ID of the list: within a second it opens nothing."""
    with located_store(store, data_dir) as url:
        is_known = _run(url, lambda book: book.revoke(key_id))
    if not is_known:
        raise ConfigError(f"there is no key {key_id!r}; moss keys list shows their ids")
    click.echo(f"moss: key {key_id} is revoked", err=True)


def _run(url: str, step: Callable[[KeyBook], Awaitable[T]]) -> T:
    async def run() -> T:
        book = KeyBook(url)
        try:
            return await step(book)
        finally:
            await book.close()

    return asyncio.run(run())


_HEADER = ["id", "owner", "name", "may use", "limits", "created", "last used", "revoked"]


def _row(entry: Entry) -> list[str]:
    key = entry.key
    times = (key.created_ms, entry.used_ms, entry.revoked_ms)
    return [
        key.id,
        key.owner,
        key.name or "-",
        _scope(key),
        _limits(key.limits),
        *map(_when, times),
    ]


def _scope(key: ApiKey) -> str:
    scopes = [("models", key.models), ("plugins", key.plugins)]
    parts = [f"{what}: {','.join(names) or 'none'}" for what, names in scopes if names is not None]
    return "; ".join([*parts, *(["admin"] if key.is_admin else [])]) or "all"


def _limits(limits: Limits) -> str:
    shown = {
        "requests/s": limits.requests_per_s,
        "tokens/min": limits.tokens_per_min,
        "turns": limits.running_turns,
    }
    return ", ".join(f"{limit:g} {name}" for name, limit in shown.items() if limit) or "none"


def _when(ms: int | None) -> str:
    """Local time, to the minute, which is as exact as the last use is known."""
    return "-" if ms is None else f"{datetime.fromtimestamp(ms / 1000):%Y-%m-%d %H:%M}"
