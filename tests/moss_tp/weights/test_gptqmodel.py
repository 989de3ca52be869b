"""Checkpoints that GPTQModel 7.7 has written load here and give the logits that it computed.

`tests/foreign/write_gptqmodel.py` made them. Tolerance: it multiplies by weights in fp16.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from moss_tp.config import ModelConfig
from moss_tp.model import load_model
from moss_tp.parallel.tp_group import TPGroup
from moss_tp.weights.checkpoint import check_headers
from tests.support.paged_sequences import PagedSequences

FIXTURES = Path(__file__).parent / "gptqmodel"
KINDS = ("int4", "int4_act_order", "int4_v2", "int8", "int8_v2", "int4_rules")
IDS = [(7 * i * i + 3) % 64 for i in range(24)]
TOLERANCE = 5e-3


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_gptqmodels(kind: str) -> None:
    directory, group = FIXTURES / kind, TPGroup.single("cpu")
    config = ModelConfig.from_dir(directory)
    check_headers(directory, config)
    model = load_model(directory, config, group, torch.float32)
    logits = PagedSequences(model, config, group).step({"a": IDS}, every_row=True)
    assert logits is not None
    expected = torch.from_numpy(np.load(directory / "logits.npy"))
    assert (logits - expected).abs().max() < TOLERANCE
    assert expected.abs().max() > 100 * TOLERANCE
