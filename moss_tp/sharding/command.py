"""The sharding command line: one flag per setting."""

from pathlib import Path

import click


@click.command(name="shard")
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST", type=click.Path(path_type=Path))
@click.option("--tp", type=click.IntRange(1), required=True, help="Ranks that will serve it.")
@click.option(
    "--dtype",
    type=click.Choice(["bfloat16", "float32", "float16"]),
    default="bfloat16",
    show_default=True,
)
@click.option("--lm-head-bits", type=click.Choice(["8"]), help="Round the LM head to int8.")
def command(source: str, destination: Path, tp: int, dtype: str, lm_head_bits: str | None) -> None:
    """Write SRC, a model directory or hub id, to DST, cut into ranks and packed for the CPU.

    `moss serve --model DST --tp N` then starts without packing, and maps the embedding. The result
    is for a tensor-parallel size, dtype and kind of processor (AVX-512 BF16, AVX-512 or AVX2), and
    is refused for another. A block is in memory at a time. It may be killed at any moment: the same
    command goes on after the last whole rank, kept in DST.partial.
    """
    from moss_tp.config import resolve_model
    from moss_tp.errors import MossError
    from moss_tp.sharding.run import shard_model
    from moss_tp.sharding.settings import ShardSettings

    bits = None if lm_head_bits is None else int(lm_head_bits)
    try:
        shard_model(ShardSettings(resolve_model(source), destination, tp, dtype, bits))
    except MossError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"written to {destination}")
