"""File formats, indexes, and directories whose files are missing or broken."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from moss_tp.errors import CheckpointError
from moss_tp.weights.checkpoint import Checkpoint
from tests.support.tiny_moss import make_checkpoint


def read_all(directory: Path) -> dict[str, Tensor]:
    with Checkpoint.open(directory) as checkpoint:
        return {
            name: stored.read(0, 0, stored.shape[0]).clone()
            for name, stored in checkpoint.tensors.items()
        }


def open_checkpoint(directory: Path) -> None:
    with Checkpoint.open(directory):
        pass


@pytest.mark.parametrize("single_file", [True, False])
@pytest.mark.parametrize("format", ["safetensors", "bin"])
def test_both_formats_with_and_without_an_index(
    tmp_path: Path, format: str, single_file: bool
) -> None:
    expected = read_all(make_checkpoint(tmp_path / "expected"))
    directory = make_checkpoint(tmp_path / "m", format="bin" if format == "bin" else "safetensors")
    if single_file:
        for file in [*directory.glob("*-of-*"), *directory.glob("*.index.json")]:
            file.unlink()
        if format == "bin":
            torch.save(expected, directory / "pytorch_model.bin")
        else:
            save_file(expected, directory / "model.safetensors")
    tensors = read_all(directory)
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in tensors.items())


@pytest.mark.parametrize("format", ["safetensors", "bin"])
def test_reads_the_slice_only(tmp_path: Path, format: str) -> None:
    directory = make_checkpoint(tmp_path, format="bin" if format == "bin" else "safetensors")
    whole = read_all(directory)["lm_head.weight"]
    with Checkpoint.open(directory) as checkpoint:
        stored = checkpoint.tensors["lm_head.weight"]
        assert stored.shape == whole.shape
        assert torch.equal(stored.read(0, 3, 9), whole[3:9])
        assert torch.equal(stored.read(1, 5, 6), whole[:, 5:6])


def test_safetensors_come_first(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    torch.save({"weight": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    assert read_all(tmp_path)["weight"].tolist() == [0]


def test_no_weights(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there are no weights"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("format", ["safetensors", "bin"])
def test_missing_file(tmp_path: Path, format: str) -> None:
    make_checkpoint(tmp_path, format="bin" if format == "bin" else "safetensors")
    next(tmp_path.glob(f"*-00002.{format}")).unlink()
    with pytest.raises(CheckpointError, match=rf"00002\.{format} is missing"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("format", ["safetensors", "bin"])
def test_truncated_file(tmp_path: Path, format: str) -> None:
    make_checkpoint(tmp_path, format="bin" if format == "bin" else "safetensors")
    file = next(tmp_path.glob(f"*-00002.{format}"))
    os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(CheckpointError, match=f"{file.name} cannot be read"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("content", ["", "{}", '{"weight_map": 3}', "[]"])
def test_broken_index(tmp_path: Path, content: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(CheckpointError, match="has no weight_map"):
        open_checkpoint(tmp_path)


def test_tensor_in_two_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_file({"weight": torch.ones(1, 1)}, tmp_path / f"{name}.safetensors")
    index = {"weight_map": {"weight": "a.safetensors", "bias": "b.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="weight is in more than one file"):
        open_checkpoint(tmp_path)


class Payload:
    """What a hostile checkpoint unpickles to."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self._mark}",)


def test_code_in_a_pickle_never_runs(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    torch.save({"weight": Payload(mark)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="cannot be read"):
        open_checkpoint(tmp_path)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Payload(mark)))
    assert mark.exists()  # the payload works
