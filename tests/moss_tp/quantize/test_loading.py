"""What is written is loaded by the engine, and predicts what numpy's reading of it does."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from moss_tp.config import ModelConfig
from moss_tp.model import load_model
from moss_tp.parallel.tp_group import TPGroup
from moss_tp.quantize.run import quantize_model
from moss_tp.quantize.text import read_sequences
from moss_tp.tokenizer import Tokenizer
from tests.moss_tp.model.ranks import LOGIT_IDS, logits_of
from tests.moss_tp.quantize.published import write_dense
from tests.moss_tp.quantize.tiny_run import make_settings
from tests.support.tiny_moss import load_oracle

POSITIONS = 512


@pytest.mark.parametrize(
    ("bits", "changes"),
    [
        (4, {}),
        (8, {"group_size": 64}),
        (4, {"act_order": True}),
        (8, {"act_order": True, "sym": True}),
        (4, {"sym": True, "group_size": -1}),
    ],
)
def test_the_engine_and_the_report_agree_with_an_independent_reading(
    tmp_path: Path, bits: int, changes: dict[str, Any]
) -> None:
    settings = make_settings(tmp_path, bits=bits, **changes)
    report = quantize_model(settings, is_shown=False)
    dense = write_dense(settings.destination, settings.model, tmp_path / "dense", bits)
    expected = oracle_logits(dense, LOGIT_IDS)
    found = engine_logits(settings.destination)
    scale = float(expected.abs().max())
    assert float((found - expected).abs().max()) < 1e-4 * scale
    # Control: the source's own logits are far away, if less so with 8 bits.
    assert float((oracle_logits(settings.model, LOGIT_IDS) - expected).abs().max()) > 1e-3 * scale
    held_out = read_sequences(settings, Tokenizer.from_dir(dense), POSITIONS).held_out
    kl = sum(divergence(settings.model, dense, ids) for ids in held_out)
    mean = kl / sum(map(len, held_out))
    assert report["quantized"]["kl"] == pytest.approx(mean, rel=1e-2)
    assert report["quantized"]["kl"] < 0.8 * report["nearest"]["kl"]


def engine_logits(directory: Path) -> Tensor:
    group, config = TPGroup.single("cpu"), ModelConfig.from_dir(directory)
    assert config.quantization is not None
    logits = logits_of(load_model(directory, config, group, torch.float32), config, group)
    assert logits is not None
    return logits


def oracle_logits(directory: Path, ids: Sequence[int]) -> Tensor:
    with torch.no_grad():
        logits: Tensor = load_oracle(directory)(torch.tensor([ids])).logits[0]
    return logits


def divergence(source: Path, other: Path, ids: Sequence[int]) -> float:
    """The sum over all positions."""
    true, found = (oracle_logits(model, ids).log_softmax(-1) for model in (source, other))
    return float((true.exp() * (true - found)).sum())
