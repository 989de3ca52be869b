"""`moss gpu-check`: see `moss_tp.gpu_check`, which also runs alone."""

from pathlib import Path

import click

from moss_tp.errors import ConfigError
from moss_tp.gpu_check.command import BUDGET_S, SIZES, check, has_gpu
from moss_tp.gpu_check.part import PARTS, chosen_parts

_NAMES = ", ".join(part.name for part in PARTS)
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(name="gpu-check")
@click.option(
    "--only", metavar="PART,…", default="", help=f"Of {', '.join(p.name for p in PARTS)}."
)
@click.option("--budget", default=BUDGET_S, show_default=True, help="Seconds in all.")
@click.option("--out", type=_FILE, help="Write the results as JSON.")
@click.option("--device", type=click.Choice(tuple(SIZES)), default="cuda", show_default=True)
@click.option("--size", type=click.Choice(("moss", "tiny")), help="Default: moss; on a CPU tiny.")
def command(only: str, budget: float, out: Path | None, device: str, size: str | None) -> None:
    """Check that this GPU computes MOSS right, and how near it comes to its own limits.

    Compares kernels, tokens and logits with references, and speed and memory with what the card was
    measured to do in the same call, in parts, each with a time limit. A model is not needed.
    """
    try:
        parts = chosen_parts(only.split(",") if only else [])
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--only") from error
    if device == "cuda" and not has_gpu():
        raise ConfigError("there is no CUDA device")
    raise click.exceptions.Exit(check(parts, device, size, budget, out))
