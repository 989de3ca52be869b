"""The digest of weights: the same for copies, another for any other model."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from moss_tp.errors import CheckpointError
from moss_tp.weights.digest import weights_digest
from tests.support.tiny_moss import make_checkpoint


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "model")


def test_a_copy_has_the_same_digest_wherever_it_lies(model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(model, tmp_path / "copy")
    for file in copy.iterdir():
        os.utime(file, (1, 1))
    assert weights_digest(copy) == weights_digest(model)
    assert len(weights_digest(model)) == 64


def test_other_values_another_config_and_another_format_are_told_apart(
    model: Path, tmp_path: Path
) -> None:
    digests = {weights_digest(model), weights_digest(model, has_weights=False)}
    file = sorted(model.glob("*.safetensors"))[0]
    tensors = load_file(file)
    name, tensor = next(iter(tensors.items()))
    save_file({**tensors, name: tensor * 1.001}, file, {"format": "pt"})
    digests.add(weights_digest(model))
    save_file({**tensors, name: tensor.to(torch.float64)}, file, {"format": "pt"})
    digests.add(weights_digest(model))
    (model / "config.json").write_text((model / "config.json").read_text("utf-8") + " ", "utf-8")
    digests.add(weights_digest(model))
    (model / "quantize_config.json").write_text("{}", "utf-8")
    digests.add(weights_digest(model))
    assert len(digests) == 6


def test_training_leaves_a_trace_in_a_large_file(tmp_path: Path) -> None:
    """Only samples of it are read, so a change of a few bytes may stay unseen."""
    (tmp_path / "config.json").write_text("{}")
    weights = torch.zeros(4 * 2**20)
    digests = set()
    for change in (0.0, 1e-6):
        save_file({"w": weights + change}, tmp_path / "model.safetensors")
        digests.add(weights_digest(tmp_path))
    assert len(digests) == 2


def test_a_missing_file_is_named(model: Path) -> None:
    sorted(model.glob("*.safetensors"))[0].unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        weights_digest(model)
