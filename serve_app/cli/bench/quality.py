"""`moss bench quality`: what quantized weights, an int8 cache or an int8 LM head cost."""

from pathlib import Path
from typing import Any

import click

from moss_tp.config import resolve_model
from moss_tp.device import DTYPES, threads_per_rank
from moss_tp.engine_config import KV_CACHE_DTYPES
from serve_app.cli.options import with_options
from serve_app.demo.bundled import BUNDLED_MODEL

_PATH = click.Path(path_type=Path)
_DTYPE = click.Choice(DTYPES)
_MODEL_OPTIONS = (
    click.option("--model", default=str(BUNDLED_MODEL), help="The reference: directory or hub id."),
    click.option("--reference-dtype", type=_DTYPE, help="Its dtype. Default: --dtype."),
    click.option(
        "--against", multiple=True, help="A model beside it; many may be. Default: itself."
    ),
    click.option("--dtype", type=_DTYPE, default="bfloat16", show_default=True),
    click.option(
        "--kv-cache-dtype", type=click.Choice(KV_CACHE_DTYPES), help="Of the models beside it."
    ),
    click.option("--lm-head-bits", type=click.Choice(["8"]), help="Of the models beside it."),
    click.option("--threads", type=click.IntRange(1), help="Default: the cores."),
)
_TEXT_OPTIONS = (
    click.option(
        "--text", "file", type=_PATH, required=True, help="As of moss quantize --evaluate."
    ),
    click.option("--samples", type=click.IntRange(1), default=32, show_default=True),
    click.option("--length", type=click.IntRange(2), default=2048, show_default=True),
    click.option("--seed", default=0, show_default=True, help="Of the draw."),
)


@click.command()
@with_options(*_MODEL_OPTIONS, *_TEXT_OPTIONS)
def quality(
    model: str,
    reference_dtype: str | None,
    against: tuple[str, ...],
    threads: int | None,
    lm_head_bits: str | None,
    kv_cache_dtype: str | None,
    dtype: str,
    **text: Any,
) -> None:
    """Compare models' predictions with those of --model, on the same text.

    Perplexity, mean KL divergence and how often the likeliest token is the same, by the kernels
    that serve, on one rank of this machine's CPU. All models are in memory at the same time.
    """
    from tqdm import tqdm  # type: ignore[import-untyped]

    from moss_tp.fidelity.scored_model import Variant
    from serve_app.bench.quality import TextSpec, measure_quality, quality_section
    from serve_app.bench.reporting.report import as_text

    bits = None if lm_head_bits is None else int(lm_head_bits)
    reference = Variant(resolve_model(model), reference_dtype or dtype)
    others = {
        name: Variant(resolve_model(name), dtype, kv_cache_dtype, bits)
        for name in against or (model,)
    }
    spec = TextSpec(**text)
    with tqdm(desc="compare", unit="token") as bar:
        found = measure_quality(reference, others, spec, threads_per_rank(1, threads), bar.update)
    click.echo(as_text(quality_section(found, spec)))
