"""An MLP whose columns are in the order of fc_out's groups computes what it did before."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from moss_tp.quantize.mlp_order import sort_columns
from moss_tp.quantize.run import quantize_model
from tests.moss_tp.quantize.published import read_linear, tensors_of
from tests.moss_tp.quantize.tiny_run import make_settings
from tests.moss_tp.quantized_moss import PARTS, Gptq, make_quantized, read_tensors

PREFIX = "transformer.h.0."
FC_IN, FC_OUT = "mlp.fc_in", "mlp.fc_out"


def block(directory: Path, bits: int) -> dict[str, Tensor]:
    gptq = Gptq(bits=bits, act_order=True, group_size=32)
    tensors = read_tensors(make_quantized(directory, gptq, layers=1))
    return {n.removeprefix(PREFIX): t for n, t in tensors.items() if n.startswith(PREFIX)}


def linear(tensors: dict[str, Tensor], name: str, bits: int) -> Any:
    return read_linear({part: tensors[f"{name}.{part}"].numpy() for part in PARTS}, bits)


@pytest.mark.parametrize("bits", [4, 8])
def test_the_same_columns_in_another_order(tmp_path: Path, bits: int) -> None:
    before = block(tmp_path, bits)
    after = sort_columns(before, bits)
    order = np.argsort(before["mlp.fc_out.g_idx"].numpy(), kind="stable")
    assert not np.array_equal(order, np.arange(len(order)))
    assert (after["mlp.fc_out.g_idx"].diff() >= 0).all()
    assert np.array_equal(linear(after, FC_IN, bits), linear(before, FC_IN, bits)[order])
    assert np.array_equal(linear(after, FC_OUT, bits), linear(before, FC_OUT, bits)[:, order])
    assert torch.equal(after["mlp.fc_in.bias"], before["mlp.fc_in.bias"][order])
    others = [name for name in before if not name.startswith("mlp.")] + ["mlp.fc_out.bias"]
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], before[name]) for name in others)


def test_a_quantized_model_has_them_so(tmp_path: Path) -> None:
    """out_proj's inputs are those of heads: their order is not free."""
    settings = make_settings(tmp_path, act_order=True)
    quantize_model(settings, is_shown=False)
    tensors = tensors_of(settings.destination)
    for layer in (0, 1):
        groups = tensors[f"transformer.h.{layer}.mlp.fc_out.g_idx"]
        assert (groups.diff() >= 0).all()
        assert (tensors[f"transformer.h.{layer}.attn.out_proj.g_idx"].diff() < 0).any()
