"""The weights that training starts from are those that were checked."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from moss_tp.errors import CheckpointError
from moss_tp.finetune.sft_model import load_causal_lm
from moss_tp.weights.checkpoint import Checkpoint
from tests.support.tiny_moss import make_checkpoint


def read_all(directory: Path) -> dict[str, torch.Tensor]:
    with Checkpoint.open(directory) as checkpoint:
        return {name: stored.values[:].clone() for name, stored in checkpoint.tensors.items()}


def save(tensors: dict[str, torch.Tensor], directory: Path, name: str) -> None:
    if name.endswith(".bin"):
        torch.save(tensors, directory / name)
    else:
        save_file(tensors, directory / name, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("format", "name"), [("safetensors", "model.safetensors"), ("bin", "pytorch_model.bin")]
)
def test_what_is_checked_is_what_is_trained(tmp_path: Path, format: str, name: str) -> None:
    """Where there is an index beside a single file, too."""
    expected = read_all(make_checkpoint(tmp_path / "other", seed=1))
    directory = make_checkpoint(tmp_path / "both", format=format)  # type: ignore[arg-type]
    save(expected, directory, name)
    checked = read_all(directory)
    loaded = load_causal_lm(directory, gradient_checkpointing=False).state_dict()
    assert loaded.keys() <= checked.keys()
    assert all(torch.equal(tensor, checked[name]) for name, tensor in loaded.items())


def test_a_tensor_that_the_single_file_lacks_is_named(tmp_path: Path) -> None:
    directory = make_checkpoint(tmp_path)
    tensors = read_all(directory)
    del tensors["transformer.h.1.mlp.fc_in.weight"]
    save(tensors, directory, "model.safetensors")
    with pytest.raises(CheckpointError, match=r"h\.1\.mlp\.fc_in\.weight"):
        load_causal_lm(directory, gradient_checkpointing=False)
