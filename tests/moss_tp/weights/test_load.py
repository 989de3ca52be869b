"""Shards of every tensor-parallel size, and checkpoints that do not fit the model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from moss_tp.config import ModelConfig
from moss_tp.errors import CheckpointError, ConfigError
from moss_tp.model import MossForCausalLM, load_model
from moss_tp.parallel.tp_group import TPGroup
from moss_tp.weights.checkpoint import Checkpoint, StoredTensor
from moss_tp.weights.load import fill_parameters, load_weights
from moss_tp.weights.names import Header
from tests.support.tiny_moss import make_checkpoint

HEADS, HEAD_DIM = 24, 6
HIDDEN = HEADS * HEAD_DIM
TP_SIZES = (1, 2, 3, 4, 6, 8)
QKV = "transformer.h.0.attn.qkv_proj.weight"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(
        tmp_path_factory.mktemp("checkpoint"), heads=HEADS, head_dim=HEAD_DIM, rotary_dim=4
    )


@pytest.fixture(scope="module")
def stored(directory: Path) -> dict[str, Tensor]:
    """All tensors of the checkpoint, whole."""
    return read_all(directory)


def read_all(directory: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for file in directory.glob("*.safetensors"):
        tensors |= load_file(file)
    return tensors


def ranks(directory: Path, tp_size: int) -> list[dict[str, Tensor]]:
    """Every rank's parameters, loaded in this process."""
    config = ModelConfig.from_dir(directory)
    loaded: list[dict[str, Tensor]] = []
    for rank in range(tp_size):
        group = TPGroup(rank, tp_size, torch.device("cpu"))
        model = MossForCausalLM(config, group, torch.float32)
        load_weights(model, directory)
        loaded.append(dict(model.named_parameters()))
    return loaded


@pytest.mark.parametrize("tp_size", TP_SIZES)
def test_qkv_rows_are_regrouped_by_head_before_sharding(
    directory: Path, stored: dict[str, Tensor], tp_size: int
) -> None:
    """The stored layout is 4 groups of [q | v | k]."""
    q, v, k = stored[QKV].view(4, 3, HIDDEN // 4, HIDDEN).unbind(1)
    whole = torch.stack([part.reshape(HIDDEN, HIDDEN) for part in (q, k, v)])
    shards = [rank[QKV].view(3, HIDDEN // tp_size, HIDDEN) for rank in ranks(directory, tp_size)]
    assert torch.equal(torch.cat(shards, dim=1), whole)


@pytest.mark.parametrize("tp_size", TP_SIZES)
@pytest.mark.parametrize(
    ("name", "dim"),
    [
        ("transformer.h.1.attn.out_proj.weight", 1),
        ("transformer.h.1.mlp.fc_in.weight", 0),
        ("transformer.h.1.mlp.fc_in.bias", 0),
        ("transformer.h.1.mlp.fc_out.weight", 1),
        ("transformer.wte.weight", 0),
        ("lm_head.weight", 0),
        ("lm_head.bias", 0),
    ],
)
def test_concatenated_shards_are_the_stored_tensor(
    directory: Path, stored: dict[str, Tensor], tp_size: int, name: str, dim: int
) -> None:
    joined = torch.cat([rank[name] for rank in ranks(directory, tp_size)], dim=dim)
    length = stored[name].shape[dim]
    assert torch.equal(joined.narrow(dim, 0, length), stored[name])
    padding = joined.narrow(dim, length, joined.shape[dim] - length)
    assert not padding.any()


@pytest.mark.parametrize("name", ["transformer.ln_f.weight", "transformer.h.0.mlp.fc_out.bias"])
def test_replicated_parameters_are_complete(
    directory: Path, stored: dict[str, Tensor], name: str
) -> None:
    assert all(torch.equal(rank[name], stored[name]) for rank in ranks(directory, 2))


class CountingTensor:
    """A lazy tensor that counts the values that are read."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor
        self.num_read = 0

    def __getitem__(self, index: Any) -> Tensor:
        part = self._tensor[index]
        self.num_read += part.numel()
        return part


@pytest.mark.parametrize("tp_size", [2, 4])
def test_rank_reads_only_its_shards(
    directory: Path, stored: dict[str, Tensor], tp_size: int
) -> None:
    config = ModelConfig.from_dir(directory)
    for rank in range(tp_size):
        group = TPGroup(rank, tp_size, torch.device("cpu"))
        counting = {name: CountingTensor(tensor) for name, tensor in stored.items()}
        tensors = {
            name: StoredTensor(Header(tuple(tensor.shape), "F32", directory), counting[name])
            for name, tensor in stored.items()
        }
        model = MossForCausalLM(config, group, torch.float32)
        fill_parameters(model, Checkpoint(tensors))
        for name, parameter in model.named_parameters():
            assert counting[name].num_read <= parameter.numel()
        assert counting[QKV].num_read == stored[QKV].numel() // tp_size


def test_converts_to_the_models_dtype(directory: Path, stored: dict[str, Tensor]) -> None:
    config = ModelConfig.from_dir(directory)
    model = MossForCausalLM(config, TPGroup.single("cpu"), torch.bfloat16)
    load_weights(model, directory)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    head = model.get_parameter("lm_head.weight")
    assert torch.equal(head, stored["lm_head.weight"].bfloat16())


def test_tp_size_that_does_not_divide_the_heads(directory: Path) -> None:
    with pytest.raises(ConfigError, match="24 heads"):
        ranks(directory, 5)


def rewrite(directory: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Changes the tensors of a small checkpoint and saves them in one file."""
    tensors = read_all(directory)
    change(tensors)
    for file in [*directory.glob("*-of-*"), *directory.glob("*.index.json")]:
        file.unlink()
    save_file(tensors, directory / "model.safetensors")


def load_small(directory: Path) -> None:
    load_model(directory, ModelConfig.from_dir(directory), TPGroup.single("cpu"), torch.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("lm_head.bias"), "missing: lm_head.bias"),
        (lambda t: t.update({"lm_head.extra": torch.ones(2)}), "left over: lm_head.extra"),
        (
            lambda t: t.update({"transformer.h.2.ln_1.bias": torch.ones(2)}),
            "left over: transformer.h.2.ln_1.bias",
        ),
        (
            lambda t: t.update({"lm_head.bias": torch.ones(9)}),
            r"misshapen: lm_head.bias \(9,\) instead of \(277,\)",
        ),
        (lambda t: t.clear(), "missing: .* and 16 more"),
        (
            lambda t: t.update({"lm_head.bias": torch.ones(277, dtype=torch.int64)}),
            r"not floats: lm_head.bias I64 in .*model\.safetensors",
        ),
    ],
)
def test_missing_left_over_and_misshapen_tensors_are_named(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    make_checkpoint(tmp_path)
    rewrite(tmp_path, change)
    with pytest.raises(CheckpointError, match=message):
        load_small(tmp_path)


def test_published_buffers_are_ignored(tmp_path: Path) -> None:
    make_checkpoint(tmp_path)
    prefix = "transformer.h.0.attn."
    rewrite(
        tmp_path,
        lambda t: t.update({prefix + "bias": torch.ones(1), prefix + "masked_bias": torch.ones(2)}),
    )
    load_small(tmp_path)
