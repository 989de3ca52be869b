"""File formats, indexes, and directories whose files are missing or broken."""

import json
import os
import pickle
import shlex
import subprocess
import sys
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
            name: stored.read(0, 0, stored.header.shape[0]).clone()
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
        assert stored.header.shape == whole.shape
        assert torch.equal(stored.read(0, 3, 9), whole[3:9])
        assert torch.equal(stored.read(1, 5, 6), whole[:, 5:6])


def test_safetensors_come_first(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    torch.save({"weight": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    assert read_all(tmp_path)["weight"].tolist() == [0]


def test_a_single_file_comes_before_an_index(tmp_path: Path) -> None:
    """As in transformers."""
    make_checkpoint(tmp_path)
    save_file({"weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    assert list(read_all(tmp_path)) == ["weight"]


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


@pytest.mark.parametrize("content", ["", "{}", '{"weight_map": 3}', '{"weight_map": {}}', "[]"])
def test_broken_index(tmp_path: Path, content: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("name", [None, 3, "../b.safetensors", "/b.safetensors", "", "."])
def test_an_index_names_files_beside_it_only(tmp_path: Path, name: object) -> None:
    index = {"weight_map": {"weight": name}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"index\.json puts weight into"):
        open_checkpoint(tmp_path)


def test_a_missing_file_is_named_with_a_tensor_of_it(tmp_path: Path) -> None:
    index = {"weight_map": {"lm_head.bias": "a.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    message = r"a\.safetensors is missing: model\.safetensors\.index\.json puts lm_head\.bias"
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["model-00001-of-00002.safetensors", "model.gguf", "model.pt"])
def test_weights_without_an_index_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match=f"there are no weights in .*there is {name}"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_git_lfs_pointer_is_named(tmp_path: Path, name: str) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    (tmp_path / name).write_text(pointer)
    with pytest.raises(CheckpointError, match=rf"{name} is a git-LFS pointer.*git lfs pull"):
        open_checkpoint(tmp_path)


def test_a_bin_of_an_old_pytorch_is_converted_as_the_message_says(tmp_path: Path) -> None:
    weight = torch.arange(3.0)
    file = tmp_path / "pytorch_model.bin"
    torch.save({"weight": weight}, file, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"from before 1\.6") as caught:
        open_checkpoint(tmp_path)
    command = shlex.split(str(caught.value).partition("Convert it: ")[2])
    subprocess.run([sys.executable, *command[1:]], check=True)
    assert torch.equal(read_all(tmp_path)["weight"], weight)


@pytest.mark.parametrize("content", [[torch.ones(1)], {"weight": 3}, {"state_dict": {}}])
def test_a_bin_without_tensors_by_name(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin does not hold tensors by name"):
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
