"""A quantized model against the same model unquantized, in our engine and in transformers'.

Tolerance: see test_parity; weights are equal to the bit, sums are not in the same order.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from moss_tp.config import ModelConfig
from moss_tp.model import load_model
from moss_tp.parallel.tp_group import TPGroup
from tests.moss_tp.model.ranks import LOGIT_IDS, PROMPTS, logits_of
from tests.moss_tp.model.test_parity import TOLERANCE, mean_difference
from tests.moss_tp.quantized_moss import (
    Gptq,
    change_config,
    make_dense,
    make_quantized,
    pack,
    read_tensors,
    unpack,
    write_tensors,
)
from tests.support.paged_sequences import PagedSequences
from tests.support.run_distributed import run_distributed
from tests.support.tiny_moss import load_oracle

KINDS = {
    "4 bits": Gptq(group_size=48, is_symmetric=True),
    "act-order": Gptq(act_order=True, group_size=32),
    "8 bits, v2": Gptq(bits=8, group_size=-1, is_v2=True, lm_head=True),
    "mixed": Gptq(dense=("0.attn.out_proj", "1.mlp.fc_in", "1.mlp.fc_out")),
    "biases": Gptq(biased=("qkv_proj", "out_proj"), act_order=True),
}
# Of which tokens vary.
SEEDS = {"4 bits": 5, "act-order": 8, "8 bits, v2": 6, "mixed": 3, "biases": 3}
STEPS = 8
GROUPS, ZEROS = "transformer.h.1.mlp.fc_in.g_idx", "transformer.h.0.attn.qkv_proj.qzeros"

Results = dict[str, tuple[Tensor | None, list[int]]]


def run(group: TPGroup, paths: dict[str, Path]) -> Results:
    """Logits of LOGIT_IDS and greedy tokens behind a prompt, for each model."""
    results = {}
    for name, path in paths.items():
        config = ModelConfig.from_dir(path)
        model = load_model(path, config, group, torch.float32)
        sequences, tokens = PagedSequences(model, config, group), list(PROMPTS["middle"])
        pending = tokens
        for _ in range(STEPS):
            pending = [sequences.greedy({"a": pending})["a"]]
            tokens = tokens + pending
        results[name] = (logits_of(model, config, group), tokens)
    return results


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("quantized")
    return {
        name: make_quantized(root / name, kind, seed=SEEDS[name]) for name, kind in KINDS.items()
    }


@pytest.fixture(scope="module")
def dense(quantized: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("dense")
    return {name: make_dense(path, root / name, KINDS[name]) for name, path in quantized.items()}


@pytest.fixture(scope="module", params=[1, 2, 4], ids=lambda size: f"tp{size}")
def results(request: pytest.FixtureRequest, quantized: dict[str, Path]) -> Results:
    tp_size: int = request.param
    if tp_size == 1:
        return run(TPGroup.single("cpu"), quantized)
    ranks: list[Results] = run_distributed(run, tp_size, quantized)
    return ranks[0]


@pytest.fixture(scope="module")
def oracle(quantized: dict[str, Path], dense: dict[str, Path]) -> dict[str, Tensor]:
    """transformers' logits."""
    return {name: oracle_logits(dense[name], quantized[name]) for name in KINDS}


def oracle_logits(path: Path, with_biases_of: Path | None = None) -> Tensor:
    model = load_oracle(path)
    for name, tensor in (read_tensors(with_biases_of) if with_biases_of else {}).items():
        if name.endswith(("qkv_proj.bias", "out_proj.bias")):
            linear = model.get_submodule(name.removesuffix(".bias"))
            linear.bias = nn.Parameter(tensor.float())
    with torch.no_grad():
        logits: Tensor = model(torch.tensor([LOGIT_IDS])).logits[0]
    return logits


@pytest.mark.parametrize("kind", KINDS)
def test_logits_equal_those_of_transformers(
    kind: str, results: Results, oracle: dict[str, Tensor]
) -> None:
    logits, _ = results[kind]
    assert logits is not None
    assert (logits - oracle[kind]).abs().max() < TOLERANCE


def test_tokens_and_logits_equal_those_of_the_unquantized_model(
    results: Results, dense: dict[str, Path]
) -> None:
    """Without the kind of which CodeGen has no place for the biases."""
    same = {name: path for name, path in dense.items() if name != "biases"}
    for kind, (expected, tokens) in run(TPGroup.single("cpu"), same).items():
        logits, actual_tokens = results[kind]
        assert logits is not None and expected is not None
        assert (logits - expected).abs().max() < TOLERANCE
        assert actual_tokens == tokens
        assert len(set(tokens[-STEPS:])) > 1


def shuffled(tensors: dict[str, Tensor]) -> None:
    tensors[GROUPS] = tensors[GROUPS].roll(5)


def higher_zero(tensors: dict[str, Tensor]) -> None:
    zeros = unpack(tensors[ZEROS].numpy(), 4)
    zeros[0, 0] = (zeros[0, 0] + 1) % 16
    tensors[ZEROS] = torch.from_numpy(pack(zeros.astype(np.uint32), 4))


def other_bias(tensors: dict[str, Tensor]) -> None:
    tensors["transformer.h.0.attn.out_proj.bias"][:32] += 0.1  # LayerNorm hides it in all alike


@pytest.mark.parametrize("change", [shuffled, higher_zero, other_bias])
def test_a_small_mistake_fails_parity(
    change: Callable[[dict[str, Tensor]], None],
    quantized: dict[str, Path],
    oracle: dict[str, Tensor],
    tmp_path: Path,
) -> None:
    tensors = read_tensors(quantized["biases"])
    change(tensors)
    directory = make_quantized(tmp_path / "changed", KINDS["biases"])
    write_tensors(directory, tensors)
    logits, _ = run(TPGroup.single("cpu"), {"changed": directory})["changed"]
    assert logits is not None
    assert (logits - oracle["biases"]).abs().max() > 10 * TOLERANCE


@pytest.mark.parametrize("version", [False, True], ids=["v1", "v2"])
def test_both_zero_formats_of_one_model(version: bool, tmp_path: Path) -> None:
    """The other format read as this one is another model."""
    kind = Gptq(is_v2=version)
    directory = make_quantized(tmp_path / "a", kind)
    expected = oracle_logits(make_dense(directory, tmp_path / "b", kind))
    single = TPGroup.single("cpu")
    logits, _ = run(single, {"a": directory})["a"]
    change_config(directory, quantization_config=Gptq(is_v2=not version).quantization_config)
    other, _ = run(single, {"a": directory})["a"]
    assert logits is not None and other is not None
    assert (logits - expected).abs().max() < TOLERANCE
    assert (other - expected).abs().max() > 0.1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "bar"), [(torch.bfloat16, 1e-2), (torch.float16, 1e-3)])
def test_other_dtypes_are_within_their_rounding(
    kind: str, dtype: torch.dtype, bar: float, quantized: dict[str, Path], oracle: dict[str, Tensor]
) -> None:
    path, group = quantized[kind], TPGroup.single("cpu")
    config = ModelConfig.from_dir(path)
    model = load_model(path, config, group, dtype)
    sequences = PagedSequences(model, config, group, dtype=dtype)
    logits = sequences.step({"all": LOGIT_IDS}, every_row=True)
    assert logits is not None
    assert mean_difference(logits, oracle[kind]) < bar
