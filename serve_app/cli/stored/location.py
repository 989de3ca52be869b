"""Where a store is: the flags that say so, as `moss serve` has them, and the way to it.

The embedded store of a directory is that of the server that runs there, or is started for the
moment.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from moss_tp.errors import ConfigError
from serve_app.cli.options import with_options
from serve_app.store.attach import attached_store

EMBEDDED = "embedded"
STORE_SCHEMES = ("redis://", "rediss://", "unix://")
STORE_FOLDER = "store"  # in the data directory
_DATA_DIR = click.Path(file_okay=False, path_type=Path)

STORE_OPTIONS = (
    click.option("--store", default=EMBEDDED, show_default=True, help="embedded or redis://…"),
    click.option(
        "--data-dir",
        type=_DATA_DIR,
        default=Path(".moss"),
        show_default=True,
        help="Where the embedded store and the log live.",
    ),
)
store_options = with_options(*STORE_OPTIONS)


def check_store(store: str) -> None:
    """Raises ConfigError unless it may be the value of `--store`."""
    if store != EMBEDDED and not store.startswith(STORE_SCHEMES):
        raise ConfigError(f"--store is {EMBEDDED} or a URL such as redis://host:6379/0")


@contextmanager
def located_store(store: str, data_dir: Path, *, may_create: bool = False) -> Iterator[str]:
    """The URL of the store for the length of the block.

    Raises ConfigError for a bad `store`, and where no embedded store has been unless the command
    `may_create` one.
    """
    check_store(store)
    if store != EMBEDDED:
        yield store
        return
    directory = data_dir / STORE_FOLDER
    if not may_create and not directory.is_dir():
        raise ConfigError(f"no store in {directory}: give the --data-dir or --store of the server")
    with attached_store(directory) as url:
        yield url
