"""`moss bench host`: the host's own time of a GPU's decode step. No GPU is needed."""

import tempfile
from pathlib import Path

import click

from moss_tp.errors import ConfigError
from serve_app.cli.bench.values import Numbers


@click.command()
@click.option("--batch", type=Numbers(), default="1,64", show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
def host(batch: tuple[int, ...], repeats: int) -> None:
    """Measure what a GPU's decode step takes of the host: the device does nothing, at once.

    Scheduling, the step's input, sampling rows, updating sequences, text. Greedy, up to 64
    sequences.
    """
    from moss_tp.gpu_check.check import Check, Plan
    from moss_tp.kernels.cuda.runtime.triton_import import import_triton

    try:
        import_triton()  # the steps are a GPU's
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    from moss_tp.gpu_check.parts.host import MAX_BATCH, host_step_s
    from serve_app.bench.reporting.figures import Section, median, milliseconds
    from serve_app.bench.reporting.report import as_text

    if max(batch) > MAX_BATCH:
        raise click.BadParameter(f"at most {MAX_BATCH} sequences", param_hint="--batch")
    with tempfile.TemporaryDirectory() as directory:
        check = Check(Plan("cpu", "tiny", Path(directory)), lambda kind, name, value: None)
        rows = [
            {
                "batch": size,
                "host_ms": milliseconds(median([host_step_s(check, size) for _ in range(repeats)])),
            }
            for size in batch
        ]
    click.echo(as_text(Section("host", "the host's time of a decode step, null device", rows)))
