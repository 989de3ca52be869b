"""Checkpoints that GPTQModel 7.7 has written load here and give the logits that it computed.

`tests/foreign/write_gptqmodel.py` made them. Tolerance: its weights are rounded to fp16, which
changes logits of size 7 by 1e-3; zeros of the other format change them by more than 1.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from moss_tp.config import ModelConfig
from moss_tp.model import load_model
from moss_tp.parallel.tp_group import TPGroup
from moss_tp.weights.checkpoint import check_headers
from tests.support.paged_sequences import PagedSequences

FIXTURES = Path(__file__).parent / "gptqmodel"
KINDS = ("int4", "int4_act_order", "int4_borrow", "int4_v2", "int8", "int8_v2", "int4_rules")
IDS = [(7 * i * i + 3) % 64 for i in range(24)]
TOLERANCE = 2e-3


def logits_of(directory: Path) -> Tensor:
    group, config = TPGroup.single("cpu"), ModelConfig.from_dir(directory)
    check_headers(directory, config)
    model = load_model(directory, config, group, torch.float32)
    logits = PagedSequences(model, config, group).step({"a": IDS}, every_row=True)
    assert logits is not None
    return logits


def error_of(directory: Path) -> float:
    expected = torch.from_numpy(np.load(directory / "logits.npy"))
    return float((logits_of(directory) - expected).abs().max())


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_gptqmodels(kind: str) -> None:
    assert error_of(FIXTURES / kind) < TOLERANCE


@pytest.mark.parametrize("kind", ["int4", "int4_v2"])
def test_the_other_format_of_zeros_is_another_model(kind: str, tmp_path: Path) -> None:
    directory = shutil.copytree(FIXTURES / kind, tmp_path / kind)
    file = directory / "config.json"
    old, new = ("gptq_v2", "gptq") if kind == "int4_v2" else ("gptq", "gptq_v2")
    text = file.read_text("utf-8")
    file.write_text(text.replace(f'"checkpoint_format": "{old}"', f'"checkpoint_format": "{new}"'))
    assert error_of(directory) > 500 * TOLERANCE
