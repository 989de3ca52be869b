"""Each rank's part of quantized layers against the same part of the same layers unquantized.

Exactly: one rank after another is loaded in this process, and both weights are rounded once.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from moss_tp.config import ModelConfig
from moss_tp.errors import ConfigError
from moss_tp.kernels.base import DenseWeight
from moss_tp.kernels.quantized import QuantizedWeight
from moss_tp.layers.parallel_weight import DenseParallelWeight, column_parallel, row_parallel
from moss_tp.layers.quantized_weight import QuantizedParallelWeight
from moss_tp.model import MossForCausalLM
from moss_tp.parallel.tp_group import TPGroup
from moss_tp.quant_config import QuantFormat
from moss_tp.weights.checkpoint import Checkpoint
from moss_tp.weights.load import fill_parameters
from tests.moss_tp.quantized_moss import Gptq, make_dense, make_quantized, pack

CPU = torch.device("cpu")
SIZES = {"heads": 8, "head_dim": 16, "vocab_size": 320}  # whole words on every rank
KINDS = {
    "4 bits": Gptq(),
    "act-order": Gptq(act_order=True, group_size=32),
    "a group on two ranks": Gptq(group_size=48, is_symmetric=True),
    "one group": Gptq(bits=8, group_size=-1),
    "v2 with a head": Gptq(bits=8, group_size=24, is_v2=True, lm_head=True, act_order=True),
    "zeros that borrow": Gptq(borrows=True, act_order=True, lm_head=True),
    "head": Gptq(lm_head=True),
    "a layer unquantized": Gptq(dense=("attn.out_proj", "0.mlp.fc_in")),
}


def weights_of(model: MossForCausalLM) -> dict[str, DenseWeight]:
    return {
        name: module.kernel_weight().dense()
        for name, module in model.named_modules()
        if isinstance(module, DenseParallelWeight | QuantizedParallelWeight)
    }


def load(directory: Path, rank: int, size: int) -> MossForCausalLM:
    with Checkpoint.open(directory) as checkpoint:
        config = checkpoint.check(ModelConfig.from_dir(directory))
        model = MossForCausalLM(config, TPGroup(rank, size, CPU), torch.float32)
        fill_parameters(model, checkpoint)
    return model


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A quantized directory and the same model unquantized."""
    root, gptq = tmp_path_factory.mktemp("models"), KINDS[request.param]
    quantized = make_quantized(root / "quantized", gptq, **SIZES)
    return [quantized, make_dense(quantized, root / "dense", gptq, **SIZES)]


@pytest.mark.parametrize("tp_size", [1, 2, 4, 8])
def test_every_rank_has_the_part_that_it_has_of_the_unquantized_model(
    pair: list[Path], tp_size: int
) -> None:
    for rank in range(tp_size):
        actual, expected = (weights_of(load(path, rank, tp_size)) for path in pair)
        assert actual.keys() == expected.keys() and len(actual) == 9
        for name, weight in actual.items():
            assert torch.equal(weight.weight, expected[name].weight), name


@pytest.mark.parametrize("tp_size", [3, 6])
def test_a_quantized_head_is_padded_to_whole_words(tmp_path: Path, tp_size: int) -> None:
    sizes = {"heads": 12, "head_dim": 16}
    gptq = Gptq(lm_head=True, dense=("attn.out_proj", "mlp.fc_in", "mlp.fc_out", "attn.qkv_proj"))
    quantized = make_quantized(tmp_path / "quantized", gptq, **sizes)
    whole = weights_of(load(quantized, 0, 1))["lm_head"].weight
    heads = [weights_of(load(quantized, rank, tp_size))["lm_head"] for rank in range(tp_size)]
    joined = torch.cat([head.weight for head in heads])
    assert {head.outputs % 8 for head in heads} == {0} == {len(joined) % tp_size}
    assert torch.equal(joined[: len(whole)], whole)
    assert not joined[len(whole) :].any()
    biases = [head.bias for head in heads if head.bias is not None]
    assert not torch.cat(biases)[len(whole) :].any()


def part(shard_of: object, tp_size: int, rank: int, group_size: int = 16) -> QuantizedWeight:
    """Of a layer of 64 inputs and 64 outputs with sorted groups."""
    group = TPGroup(rank, tp_size, CPU)
    shard = (row_parallel if shard_of == "row" else column_parallel)(64, 64, group)
    module = QuantizedParallelWeight(QuantFormat(4, group_size), shard, group, torch.float32)
    for parameter in module.parameters():
        parameter.zero_()
    groups = torch.arange(64, dtype=torch.int32) // group_size
    spans = module.shards["g_idx"].spans
    module.g_idx.copy_(torch.cat([groups[start:stop] for start, stop in spans]))
    return module.kernel_weight()


def test_a_row_parallel_rank_has_its_own_groups_only() -> None:
    weight = part("row", 4, 3)
    assert (len(weight.scales), weight.groups.tolist()) == (1, [0] * 16)
    cut = part("row", 4, 1, group_size=24)  # inputs 16 to 32, of groups 0 and 1
    assert (len(cut.scales), cut.groups.tolist()) == (2, [0] * 8 + [1] * 8)
    assert len(part("column", 4, 3).scales) == 4


def zeros_of(words: Tensor, form: QuantFormat) -> list[int]:
    """As a kernel gets them, of a layer of one group whose `qzeros` are these."""
    group, outputs = TPGroup.single("cpu"), len(words) * form.per_word
    module = QuantizedParallelWeight(
        form, column_parallel(32, outputs, group), group, torch.float32
    )
    for parameter in module.parameters():
        parameter.zero_()
    module.qzeros.copy_(words)
    zeros: list[int] = module.kernel_weight().zeros.flatten().tolist()
    return zeros


def test_zeros_are_not_masked() -> None:
    """As MOSS's own kernel has it: a stored 255 of 8 bits means 256."""
    for bits, highest in ((4, 16), (8, 256)):
        words = torch.full((4,), -1, dtype=torch.int32)
        assert set(zeros_of(words, QuantFormat(bits, -1))) == {highest}


@pytest.mark.parametrize(("bits", "ones"), [(4, 0x11111111), (8, 0x01010101)])
def test_zeros_that_borrow(bits: int, ones: int) -> None:
    """GPTQModel subtracts 1 in every place of a whole word: that of a zero of 0 borrows."""
    zeros = np.random.default_rng(0).integers(0, 2**bits, 256)
    zeros[::5] = 0
    words = torch.from_numpy(pack(zeros, bits)) - ones
    assert zeros_of(words, QuantFormat(bits, -1, borrows=True)) == zeros.tolist()
    assert zeros_of(words, QuantFormat(bits, -1)) != zeros.tolist()


@pytest.mark.parametrize("kind", [row_parallel, column_parallel])
def test_a_cut_within_a_word_is_refused(kind: object) -> None:
    group = TPGroup(0, 4, CPU)
    shard = (row_parallel if kind is row_parallel else column_parallel)(48, 48, group)
    with pytest.raises(ConfigError, match="4 bits, 8 to a word, cannot be cut at 12"):
        QuantizedParallelWeight(QuantFormat(4, 16), shard, group, torch.float32)
    QuantizedParallelWeight(QuantFormat(8, 16), shard, group, torch.float32)
