"""`moss gpu-check`: see `moss_tp.gpu_check`, which also runs alone."""

from pathlib import Path

import click

from moss_tp.errors import ConfigError
from moss_tp.gpu_check.command import BUDGET_S, DESCRIPTION, HELP, SIZES, check, prepare

_FILE = click.Path(path_type=Path)
_DEVICE = click.Choice(tuple(SIZES))
_SIZE = click.Choice(("moss", "tiny"))


@click.command(name="gpu-check", help=DESCRIPTION)
@click.option("--only", metavar="PART,…", default="", help=HELP["only"])
@click.option("--budget", default=BUDGET_S, show_default=True, help=HELP["budget"])
@click.option("--out", type=_FILE, help=HELP["out"])
@click.option("--device", type=_DEVICE, default="cuda", show_default=True, help=HELP["device"])
@click.option("--size", type=_SIZE, help=HELP["size"])
def command(only: str, budget: float, out: Path | None, device: str, size: str | None) -> None:
    try:
        parts = prepare(only, budget, out, device)
    except (ConfigError, ValueError) as error:
        raise click.UsageError(str(error)) from error
    raise click.exceptions.Exit(check(parts, device, size, budget, out))
