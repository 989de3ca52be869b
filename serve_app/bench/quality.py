"""Predictions of models beside those of a reference: of quantized ones, or of one with another KV
cache or LM head."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from moss_tp.errors import ConfigError
from moss_tp.fidelity.compare import compare_models
from moss_tp.fidelity.fidelity import Fidelity
from moss_tp.fidelity.scored_model import ScoredModel, Variant
from moss_tp.quantize.text import Ids, draw
from moss_tp.tokenizer import Tokenizer
from serve_app.bench.hardware.machine import torch_threads
from serve_app.bench.reporting.figures import Section


@dataclass(frozen=True)
class TextSpec:
    """`samples` sequences of at most `length` tokens of a file, drawn as `moss quantize` does."""

    file: Path
    samples: int
    length: int
    seed: int


@dataclass(frozen=True)
class Quality:
    """By name, `compare.REFERENCE` among them; on so many tokens."""

    fidelities: dict[str, Fidelity]
    num_tokens: int


def read_text(text: TextSpec, model: Path, positions: int) -> list[Ids]:
    """With the model's tokenizer. Raises ConfigError for a file that is not there or empty."""
    if not text.file.exists():
        raise ConfigError(f"there is no {text.file}")
    length, tokenizer = min(text.length, positions), Tokenizer.from_dir(model)
    sequences = draw(text.file, tokenizer, length, text.samples, text.seed)
    if not sequences:
        raise ConfigError(f"{text.file} has too little text to measure")
    return sequences


def measure_quality(
    reference: Variant,
    others: dict[str, Variant],
    text: TextSpec,
    threads: int,
    advance: Callable[[int], object],
) -> Quality:
    """All models are in memory at the same time. `advance`: see `compare_models`."""
    with torch_threads(threads):
        first = ScoredModel(reference)
        models = {name: ScoredModel(variant) for name, variant in others.items()}
        positions = (model.config.max_position_embeddings for model in (first, *models.values()))
        sequences = read_text(text, reference.directory, min(positions))
        found = compare_models(first, models, sequences, advance)
    return Quality(found, sum(map(len, sequences)))


def quality_section(quality: Quality, text: TextSpec) -> Section:
    rows = [
        {
            "model": name,
            "perplexity": round(found.perplexity, 4),
            "mean_kl": f"{found.kl:.6f}",
            "same_top_token": f"{found.top1:.3%}",
        }
        for name, found in quality.fidelities.items()
    ]
    title = f"predictions of {quality.num_tokens} tokens of {text.file.name}"
    return Section("quality", title, rows)
