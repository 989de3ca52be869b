"""The embedding's rows lie in the model's file where they can, and have its values."""

from pathlib import Path
from typing import Literal

import psutil
import pytest
import torch
from safetensors.torch import save_file

from moss_tp.config import ModelConfig
from moss_tp.model import MossForCausalLM
from moss_tp.parallel.tp_group import TPGroup
from moss_tp.weights.checkpoint import Checkpoint, StoredTensor
from moss_tp.weights.load import load_weights
from moss_tp.weights.mapped import mapped_part
from moss_tp.weights.names import Header
from moss_tp.weights.shard import Shard
from tests.moss_tp.weights.test_load import read_all
from tests.support.tiny_moss import make_checkpoint

WTE = "transformer.wte.weight"


def file_of(address: int) -> str:
    """The file that is mapped there, or a name in brackets."""
    for found in psutil.Process().memory_maps(grouped=False):
        first, last = (int(edge, 16) for edge in found.addr.split("-"))
        if first <= address < last:
            return str(found.path)
    raise AssertionError(address)


def embedding(directory: Path, rank: int, tp_size: int, dtype: torch.dtype) -> torch.Tensor:
    config, group = ModelConfig.from_dir(directory), TPGroup(rank, tp_size, torch.device("cpu"))
    model = MossForCausalLM(config, group, dtype)
    load_weights(model, directory)
    return model.transformer.wte.weight.data


@pytest.mark.parametrize("tp_size", [1, 2, 4])
def test_a_rank_maps_its_rows(tmp_path: Path, tp_size: int) -> None:
    directory = make_checkpoint(tmp_path, vocab_size=280, dtype=torch.bfloat16)
    rows = [embedding(directory, rank, tp_size, torch.bfloat16) for rank in range(tp_size)]
    assert all(file_of(part.data_ptr()).endswith(".safetensors") for part in rows)
    assert torch.equal(torch.cat(rows), read_all(directory)[WTE])


@pytest.mark.parametrize(
    ("stored", "format", "dtype", "tp_size"),
    [
        (torch.float16, "safetensors", torch.bfloat16, 1),
        (torch.float32, "bin", torch.float32, 1),
        (torch.float32, "safetensors", torch.float32, 2),  # the last rank has padding
    ],
)
def test_other_rows_are_copied(
    tmp_path: Path,
    stored: torch.dtype,
    format: Literal["safetensors", "bin"],
    dtype: torch.dtype,
    tp_size: int,
) -> None:
    directory = make_checkpoint(tmp_path, vocab_size=281, dtype=stored, format=format)
    rows = embedding(directory, tp_size - 1, tp_size, dtype)
    assert file_of(rows.data_ptr()).startswith("[")


def test_rows_that_are_not_used_take_no_memory(tmp_path: Path) -> None:
    file, length = tmp_path / "model.safetensors", 16 << 20
    save_file({"before": torch.ones(3), "rows": torch.ones(length // 64, 64)}, file)
    with Checkpoint.open(tmp_path) as checkpoint:
        stored = checkpoint.tensors["rows"]
        shard = Shard.part(stored.header.shape, 0, 1, 2)
        like = torch.empty(0).new_empty(shard.local_shape)
        before = psutil.Process().memory_info().rss
        part = mapped_part("rows", stored, shard, like)
    assert part is not None and part[7].tolist() == [1] * 64
    assert psutil.Process().memory_info().rss - before < length // 2
    assert part.all()
    assert psutil.Process().memory_info().rss - before >= 2 * length


def test_values_that_no_word_boundary_begins_are_copied(tmp_path: Path) -> None:
    """Of a file whose header's length is no multiple of a value's size."""
    file = tmp_path / "odd.safetensors"
    header = b'{"rows":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]}}'
    file.write_bytes(len(header).to_bytes(8, "little") + header + torch.ones(2).numpy().tobytes())
    rows = torch.zeros(2, 1)
    stored = StoredTensor(Header((2, 1), "F32", file), rows)
    assert len(header) % 4 and mapped_part("rows", stored, Shard.whole((2, 1)), rows) is None
    file.write_bytes((len(header) + 1).to_bytes(8, "little") + header + b" " + b"\0\0\x80\x3f" * 2)
    part = mapped_part("rows", stored, Shard.whole((2, 1)), rows)
    assert part is not None and part.flatten().tolist() == [1, 1]
