"""The quantization command line: one flag per setting."""

from pathlib import Path
from typing import Any

import click

_PATH = click.Path(path_type=Path)


@click.command(name="quantize")
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST", type=_PATH)
@click.option("--bits", type=click.Choice(["4", "8"]), default="4", show_default=True)
@click.option(
    "--group-size",
    default=128,
    show_default=True,
    help="Inputs that share a scale; -1 for all of a linear's. It must divide the model's sizes.",
)
@click.option(
    "--act-order",
    is_flag=True,
    help="Round the inputs with the largest activations first: better, and more to pack.",
)
@click.option("--sym", is_flag=True, help="Fixed zero points (MOSS's own checkpoints have others).")
@click.option(
    "--calibration",
    type=_PATH,
    help="Required. Text like that the model will see: MOSS's conversations (.json, .jsonl or a "
    'folder of .json), {"text": …} lines (.jsonl), or plain text.',
)
@click.option(
    "--samples",
    default=128,
    show_default=True,
    help="Conversations or pieces of text to calibrate with, drawn at random.",
)
@click.option(
    "--length",
    default=2048,
    show_default=True,
    help="Their greatest length in tokens, capped at the model's positions.",
)
@click.option(
    "--held-out",
    default=32,
    show_default=True,
    help="As many to measure the result on, kept out of the calibration; at most a fifth.",
)
@click.option("--evaluate", type=_PATH, help="Measure on this file instead.")
@click.option("--seed", default=0, show_default=True, help="Of the draw.")
@click.option(
    "--damping",
    default=0.01,
    show_default=True,
    help="Added to the Hessian's diagonal, as a share of its mean.",
)
@click.option(
    "--dtype",
    type=click.Choice(["bfloat16", "float32"]),
    default="bfloat16",
    show_default=True,
    help="Of activations and products. Hessians and weights are fp32 always.",
)
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    help="By default a GPU where there is one.",
)
def command(
    source: str, bits: str, calibration: Path | None, device: str | None, **options: Any
) -> None:
    """Write SRC, a model directory or hub id, to DST with its blocks' linears in 4 or 8 bits.

    By GPTQ (Frantar et al. 2022), in the layout of MOSS's published checkpoints. One block is in
    memory at a time. It may be killed at any moment: the same command goes on from the last whole
    block, kept in DST.partial. At the end it reports perplexity, KL divergence and top-1 agreement
    on held-out text, beside those of rounding to nearest.
    """
    from moss_tp.config import resolve_model
    from moss_tp.errors import MossError
    from moss_tp.quantize.report import report_lines
    from moss_tp.quantize.run import quantize_model
    from moss_tp.quantize.settings import QuantizeSettings

    if calibration is None:
        raise click.UsageError(
            "--calibration FILE is missing: how weights are best rounded depends on the text that "
            "the model will see, so there is no default"
        )
    try:
        settings = QuantizeSettings(
            model=resolve_model(source),
            calibration=calibration,
            bits=int(bits),
            device=device or default_device(),
            **options,
        )
        report = quantize_model(settings)
    except MossError as error:
        raise click.ClickException(str(error)) from error
    for line in report_lines(report, settings):
        click.echo(line)
    click.echo(f"written to {settings.destination}")


def default_device() -> str:
    """A GPU where there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
