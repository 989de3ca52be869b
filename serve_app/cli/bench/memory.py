"""`moss bench memory`: what a model of MOSS's own size takes, on this machine's CPU."""

import tempfile
from pathlib import Path

import click

_SHAPES = ("moss-moon-003", "tiny")


@click.command()
@click.option("--shape", type=click.Choice(_SHAPES), default=_SHAPES[0], show_default=True)
@click.option("--bits", type=click.Choice(["4", "8", "16"]), default="4", show_default=True)
@click.option("--tp", type=click.IntRange(1), default=2, show_default=True, help="Ranks.")
@click.option("--lm-head-bits", type=click.Choice(["8"]), help="Round the LM head to int8.")
@click.option("--threads", type=click.IntRange(1), help="Per rank. Default: cores / ranks.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=tempfile.gettempdir(),
    show_default=True,
    help="For the model: 10 GiB in 4 bits, deleted at the end.",
)
def memory(
    shape: str, bits: str, tp: int, lm_head_bits: str | None, threads: int | None, directory: Path
) -> None:
    """Make a random model of the published shape, start it twice, and fill its context.

    Prints the peak memory of all processes (PSS: shared pages divided, mapped files included) when
    it is loaded, after a turn, and with all positions in the KV cache, beside MOSS's own table; how
    long starts take from `moss shard`'s files; and the speed of decoding.
    """
    from moss_tp.device import threads_per_rank
    from moss_tp.errors import MossError
    from serve_app.bench.hardware.machine import measure_machine
    from serve_app.bench.memory.memory_bench import (
        DTYPE,
        MemorySpec,
        measure_memory,
        memory_sections,
    )
    from serve_app.bench.reporting.report import as_text

    head = None if lm_head_bits is None else int(lm_head_bits)
    spec = MemorySpec(shape, int(bits) % 16, tp, head, directory, threads)
    try:
        run = measure_memory(spec)
    except MossError as error:
        raise click.ClickException(str(error)) from error
    machine = measure_machine(tp * threads_per_rank(tp, threads), DTYPE)
    for section in memory_sections(spec, run, machine):
        click.echo(f"\n{as_text(section)}")
