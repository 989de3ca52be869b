"""`moss bench collectives`: the latency of collectives between ranks of this machine."""

import click

from serve_app.cli.bench.values import Numbers
from serve_app.cli.options import with_options

_OPTIONS = (
    click.option("--tp", type=click.IntRange(2), default=2, show_default=True, help="Ranks."),
    click.option("--bytes", "num_bytes", type=Numbers(), default="8192,1048576", show_default=True),
    click.option("--pauses", type=Numbers(), default="1,10", show_default=True, help="ms."),
    click.option("--repeats", type=click.IntRange(1), default=3, show_default=True),
    click.option("--rounds", type=click.IntRange(1), default=200, show_default=True),
)


@click.command()
@with_options(*_OPTIONS)
def collectives(
    tp: int, num_bytes: tuple[int, ...], pauses: tuple[int, ...], repeats: int, rounds: int
) -> None:
    """Measure all-reduce and broadcast between ranks, through shared memory and over gloo."""
    from serve_app.bench.collectives import (
        CollectivesSpec,
        collectives_sections,
        measure_collectives,
    )
    from serve_app.bench.reporting.report import as_text

    results = measure_collectives(CollectivesSpec(tp, num_bytes, (0, *pauses), rounds), repeats)
    for section in collectives_sections(results, tp):
        click.echo(f"\n{as_text(section)}")
