"""Weights without a checkpoint: finite logits at any shape, and each rank's own shard."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from moss_tp.config import ModelConfig
from moss_tp.model import MossForCausalLM, load_model
from moss_tp.parallel.tp_group import TPGroup
from moss_tp.weights import random_values
from moss_tp.weights.dummy import make_dummy_weights
from tests.support.config_only import config_only
from tests.support.paged_sequences import PagedSequences

CPU = torch.device("cpu")
SHAPES = [
    {"heads": 4, "head_dim": 16},
    {"heads": 6, "head_dim": 22, "rotary_dim": 6, "vocab_size": 101, "layers": 3},
    {"heads": 1, "head_dim": 64, "vocab_size": 1031, "layers": 1},
    {"heads": 12, "head_dim": 64, "rotary_dim": 64, "layers": 12},
]


def logits_of(directory: Path, dtype: torch.dtype) -> Tensor:
    config, group = ModelConfig.from_dir(directory), TPGroup.single("cpu")
    # torch's own operations, since the CPU's kernels take multiples of 16 only
    model = load_model(directory, config, group, dtype, "reference", load_format="dummy")
    steps = PagedSequences(model, config, group, dtype=dtype)
    logits = steps.step({"a": [1, 2, 3, 50, 7], "b": [9]}, every_row=True)
    assert logits is not None
    return logits


@pytest.fixture(autouse=True)
def reference_back_end(monkeypatch: pytest.MonkeyPatch) -> None:
    from moss_tp import kernels
    from moss_tp.kernels.reference.block import reference_kernels

    monkeypatch.setitem(kernels.BACK_ENDS, "reference", lambda dtype, _: reference_kernels(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", SHAPES)
def test_logits_are_finite_and_differ(
    shape: dict[str, int], dtype: torch.dtype, tmp_path: Path
) -> None:
    logits = logits_of(config_only(tmp_path, **shape), dtype)
    assert logits.isfinite().all()
    spread = logits.std(-1)
    assert spread.min() > 0.3
    assert spread.max() < 4
    assert len(set(logits.argmax(-1).tolist())) > 1


def shard(directory: Path, rank: int, size: int, seed: int = 0) -> dict[str, Tensor]:
    group = TPGroup(rank, size, CPU)
    model = MossForCausalLM(ModelConfig.from_dir(directory), group, torch.float32)
    for parameter in model.parameters():
        parameter.fill_(torch.nan if parameter.is_floating_point() else -1)
    make_dummy_weights(model, rank, CPU, seed)
    return dict(model.named_parameters())


def test_a_seed_gives_one_model(tmp_path: Path) -> None:
    directory = config_only(tmp_path)
    first, again, other = (shard(directory, 0, 1, seed) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_ranks_hold_shards_of_their_own_and_the_same_copies(tmp_path: Path) -> None:
    ranks = [shard(config_only(tmp_path), rank, 4) for rank in range(4)]
    for name in ranks[0]:
        values = [rank[name] for rank in ranks]
        assert all(value.isfinite().all() for value in values)
        is_copy = ".ln_" in name or name.endswith("fc_out.bias")
        for value in values[1:]:
            assert torch.equal(value, values[0]) == is_copy, name
    # 277 ids on four ranks of 70: the last has three rows of padding.
    assert (ranks[3]["lm_head.weight"][-3:] == 0).all()
    assert (ranks[3]["lm_head.weight"][-4] != 0).all()


def test_small_pieces_fill_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_values, "_PIECE", 100)
    made = shard(config_only(tmp_path), 1, 2)
    assert all(value.isfinite().all() for value in made.values())
    whole = made["transformer.h.0.attn.qkv_proj.weight"]
    assert len(set(whole[:, 0].tolist())) == len(whole)  # no piece repeats another


GPTQ = {"quant_method": "gptq", "bits": 8, "group_size": -1, "desc_act": True, "lm_head": True}
QUANTIZED: dict[str, dict[str, Any]] = {
    "wbits 4": {"wbits": 4, "groupsize": 16},
    "gptq": {"quantization_config": GPTQ, "vocab_size": 280},
    "act-order": {"quantization_config": {**GPTQ, "bits": 4, "group_size": 32, "lm_head": False}},
}


@pytest.mark.parametrize("kind", QUANTIZED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_quantized_logits_are_finite_and_differ(
    kind: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    logits = logits_of(config_only(tmp_path, **QUANTIZED[kind]), dtype)
    assert logits.isfinite().all()
    spread = logits.std(-1)
    assert spread.min() > 0.3 and spread.max() < 4
    assert len(set(logits.argmax(-1).tolist())) > 1


@pytest.mark.parametrize("kind", QUANTIZED)
def test_quantized_ranks_agree_on_the_groups(kind: str, tmp_path: Path) -> None:
    config = ModelConfig.from_dir(config_only(tmp_path, **QUANTIZED[kind]))
    ranks = [shard(tmp_path, rank, 2) for rank in range(2)]
    whole = shard(tmp_path, 0, 1)
    form = config.format_of("transformer.h.0.attn.out_proj")
    assert form is not None
    for layer, dim in (("attn.qkv_proj", None), ("attn.out_proj", 0), ("mlp.fc_out", 0)):
        name = f"transformer.h.0.{layer}.g_idx"
        parts = [rank[name] for rank in ranks]
        joined = parts[0] if dim is None else torch.cat(parts)
        assert torch.equal(joined, whole[name])
        is_sorted = torch.equal(joined, joined.sort().values)
        assert is_sorted == (not form.has_act_order or form.group_size == -1)
        assert len(set(joined.tolist())) == form.num_groups(len(joined))
    levels = [rank["transformer.h.0.mlp.fc_in.qweight"] for rank in ranks]
    assert not torch.equal(levels[0], levels[1])
