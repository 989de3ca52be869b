"""The same logits to the bit on 1, 2, 4 and 8 ranks, whatever the weights, their dtype and the KV
cache. Ranks are threads of this process; the collectives are those of shared memory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from moss_tp.config import ModelConfig
from moss_tp.kernels import leaves
from moss_tp.kernels.base import StepPlan
from moss_tp.kernels.cpu import block
from moss_tp.layers.kv_cache import KVCache
from moss_tp.model import MossForCausalLM, load_model
from moss_tp.parallel.shm import SharedMemory
from moss_tp.parallel.tp_group import TPGroup
from tests.moss_tp.model.ranks import LOGIT_IDS
from tests.moss_tp.parallel.shared_ranks import on_ranks
from tests.moss_tp.quantized_moss import Gptq, make_quantized
from tests.support.paged_sequences import PagedSequences
from tests.support.tiny_moss import make_checkpoint

FP32, BF16, INT8 = torch.float32, torch.bfloat16, torch.int8
SIZES: dict[str, Any] = {"heads": 8, "head_dim": 16, "rotary_dim": 8, "inner": 512}
TP_SIZES = (1, 2, 4, 8)


def dense(path: Path) -> Path:
    return make_checkpoint(path, **SIZES)


def gptq(bits: int, **fields: Any) -> Callable[[Path], Path]:
    return lambda path: make_quantized(path, Gptq(bits=bits, **fields), **SIZES)


# How the checkpoint is made, the model's dtype, the cache's.
MODELS: dict[str, tuple[Callable[[Path], Path], torch.dtype, torch.dtype]] = {
    "dense in fp32": (dense, FP32, FP32),
    "dense in bf16": (dense, BF16, BF16),
    "dense in fp16": (dense, torch.float16, torch.float16),
    "int8 cache": (dense, BF16, INT8),
    "4 bits in fp32": (gptq(4), FP32, FP32),
    "4 bits in bf16": (gptq(4), BF16, BF16),
    "4 bits, symmetric": (gptq(4, is_symmetric=True), BF16, INT8),
    "4 bits, act-order": (gptq(4, act_order=True), BF16, BF16),
    "4 bits, act-order, in fp32": (gptq(4, act_order=True), FP32, INT8),
    "8 bits in fp32": (gptq(8), FP32, FP32),
    "8 bits, act-order": (gptq(8, act_order=True), BF16, BF16),
}


class WithHidden:
    """A model that returns hidden states, which show every bit, beside logits, which round them."""

    def __init__(self, model: MossForCausalLM) -> None:
        self._model = model

    def __call__(
        self, token_ids: Tensor, plan: StepPlan, rows: Tensor, kv: KVCache
    ) -> Tensor | None:
        x = self._model.hidden(token_ids, plan, kv)
        logits = self._model.head(x, rows)
        return None if logits is None else torch.cat((x[rows], logits), dim=1)


def outputs(path: Path, dtype: torch.dtype, cache_dtype: torch.dtype, tp_size: int) -> Tensor:
    """Hidden states and logits of each token of a prompt, then of some decoded ones."""
    config = ModelConfig.from_dir(path)

    def run(memory: SharedMemory | None, rank: int) -> Tensor | None:
        control = None if memory is None else object()
        group = TPGroup(rank, tp_size, torch.device("cpu"), control, tensors=memory)
        model = cast(MossForCausalLM, WithHidden(load_model(path, config, group, dtype)))
        sequences = PagedSequences(model, config, group, dtype=cache_dtype)
        steps = [sequences.step({"all": LOGIT_IDS}, every_row=True)]
        steps += [sequences.step({"all": [token]}) for token in LOGIT_IDS[:4]]
        return torch.cat(own) if (own := [step for step in steps if step is not None]) else None

    of_root = run(None, 0) if tp_size == 1 else on_ranks(tp_size, run)[0]
    assert of_root is not None
    return of_root


@pytest.mark.parametrize("name", MODELS)
def test_logits_do_not_depend_on_the_number_of_ranks(name: str, tmp_path: Path) -> None:
    make, dtype, cache_dtype = MODELS[name]
    path = make(tmp_path / "model")
    assert ModelConfig.from_dir(path).num_leaves == 8
    alone, *others = (outputs(path, dtype, cache_dtype, tp_size) for tp_size in TP_SIZES)
    assert alone.isfinite().all()
    assert alone.std() > 0.1
    for tp_size, other in zip(TP_SIZES[1:], others, strict=True):
        assert torch.equal(other, alone), f"tp {tp_size} differs"


@pytest.mark.parametrize("name", ["dense in fp32", "4 bits, act-order"])
@pytest.mark.parametrize("swapped", [(1, 2), (0, 7)])
def test_two_swapped_leaves_are_noticed(
    name: str, swapped: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leaf_spans(width: int, inner: int, count: int) -> tuple[tuple[range, range], ...]:
        spans = list(leaves.leaf_spans(width, inner, count))
        one, other = swapped
        spans[one], spans[other] = spans[other], spans[one]
        return tuple(spans)

    make, dtype, cache_dtype = MODELS[name]
    path = make(tmp_path / "model")
    alone = outputs(path, dtype, cache_dtype, 1)
    monkeypatch.setattr(block, "leaf_spans", leaf_spans)
    assert not torch.equal(outputs(path, dtype, cache_dtype, 1), alone)


def test_a_bias_that_is_added_before_the_sum_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = dense(tmp_path / "model")
    alone = outputs(path, FP32, FP32, 1)
    monkeypatch.setattr(block.PackedBlock, "of_one_rank", lambda self: self)
    assert not torch.equal(outputs(path, FP32, FP32, 2), alone)


def test_ranks_that_do_not_divide_the_leaves_are_outside_the_promise(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "model", **{**SIZES, "heads": 12, "inner": 48 * 16})
    assert ModelConfig.from_dir(path).num_leaves == 4
    assert ModelConfig.from_dir(path).leaves_of_rank(3) == 1
    torch.testing.assert_close(
        outputs(path, FP32, FP32, 3), outputs(path, FP32, FP32, 1), atol=1e-4, rtol=1e-3
    )
