"""The same logits to the bit on 1, 2, 4 and 8 ranks with CUDA's kernels, by their references.

Those sum a leaf in fp64 and round it once, so what shows is how leaves are cut, packed and added.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from moss_tp.kernels.cuda import products
from moss_tp.kernels.cuda.linear.cut import Cut
from moss_tp.parallel.shm import SharedMemory
from moss_tp.parallel.tp_group import TPGroup
from tests.moss_tp.model.test_any_tp import BF16, FP32, TP_SIZES, dense, gptq
from tests.moss_tp.model.test_cuda import logits_of
from tests.moss_tp.parallel.shared_ranks import on_ranks

FP16 = torch.float16
MODELS = {
    "dense in fp32": (dense, FP32),
    "dense in fp16": (dense, FP16),
    "dense in bf16": (dense, BF16),
    "4 bits": (gptq(4), FP16),
    "4 bits, symmetric": (gptq(4, is_symmetric=True), BF16),
    "4 bits, act-order": (gptq(4, act_order=True), FP16),
    "8 bits, act-order": (gptq(8, act_order=True), FP16),
}


def outputs(path: Path, dtype: torch.dtype, tp_size: int) -> Tensor:
    def run(memory: SharedMemory | None, rank: int) -> Tensor | None:
        control = None if memory is None else object()
        group = TPGroup(rank, tp_size, torch.device("cpu"), control, tensors=memory)
        return logits_of(group, path, dtype, "cuda")

    of_root = run(None, 0) if tp_size == 1 else on_ranks(tp_size, run)[0]
    assert of_root is not None
    return of_root


@pytest.mark.parametrize("name", MODELS)
def test_logits_do_not_depend_on_the_number_of_ranks(name: str, tmp_path: Path) -> None:
    make, dtype = MODELS[name]
    path = make(tmp_path / "model")
    alone, *others = (outputs(path, dtype, tp_size) for tp_size in TP_SIZES)
    assert alone.isfinite().all() and alone.std() > 0.1
    for tp_size, other in zip(TP_SIZES[1:], others, strict=True):
        assert torch.equal(other, alone), f"tp {tp_size} differs"


def test_fewer_leaves_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = dense(tmp_path / "model")
    alone = outputs(path, FP32, 1)

    def halved(count: int, first: int, second: int = 0) -> Cut:
        return Cut(count // 2, 2 * first, 2 * second) if count > 1 else Cut(count, first, second)

    monkeypatch.setattr(products, "Cut", halved)
    assert not torch.equal(outputs(path, FP32, 1), alone)
