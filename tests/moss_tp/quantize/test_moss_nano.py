"""The demo model keeps its predictions: measured on conversations with held-out values."""

from pathlib import Path

import pytest

from moss_tp.quantize.run import quantize_model
from moss_tp.quantize.settings import QuantizeSettings
from serve_app.demo.bundled import BUNDLED_MODEL
from serve_app.demo.conversations.generator import write_conversations


@pytest.mark.parametrize(
    ("bits", "group_size", "max_kl", "max_ratio"),
    [(4, 64, 0.01, 0.5), (8, 128, 0.001, 0.8)],  # measured: 0.0028 and 0.00001; 0.29
)
def test_kl_divergence(
    tmp_path: Path, bits: int, group_size: int, max_kl: float, max_ratio: float
) -> None:
    write_conversations(tmp_path / "train.jsonl", 60, 0)
    write_conversations(tmp_path / "val.jsonl", 20, 1, held_out=True)
    settings = QuantizeSettings(
        model=BUNDLED_MODEL,
        destination=tmp_path / "out",
        calibration=tmp_path / "train.jsonl",
        evaluate=tmp_path / "val.jsonl",
        bits=bits,
        group_size=group_size,
        samples=48,
        dtype="float32",
    )
    report = quantize_model(settings, is_shown=False)
    assert report["quantized"]["kl"] < max_kl
    assert report["quantized"]["kl"] < max_ratio * report["nearest"]["kl"]
