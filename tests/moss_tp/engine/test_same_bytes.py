"""The same request gives the same ids and logprobs, to the bit, by every way through the engine.

A cell is a model on one path of the kernels; it loads once, and every way of `WAYS` compares 24
requests with what each replies alone. `make test` runs some cells, `make chaos` all. The reference
kernels (fp16, odd head sizes, CUDA) are outside the promise.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from moss_tp import LLM, kernels
from moss_tp.kernels.base import Kernels, Weight
from moss_tp.kernels.cpu.attention.attend import attend
from moss_tp.kernels.cpu.linear import pack
from moss_tp.kernels.cpu.linear.mul_add import FMA_X8_BF16, FMA_X8_FP32, MulAdd
from moss_tp.kernels.cpu.linear.panel import PanelLinear
from moss_tp.kernels.reference.block import eager_kernels
from tests.support.same_bytes import MAX_MODEL_LEN, WAYS, Bench, differences
from tests.support.tiny_moss import make_checkpoint

NANO = Path(__file__).parents[3] / "serve_app/demo/moss_nano"
HEAD_DIMS = {"random64": 64, "random16": 16}
FMA8 = {torch.bfloat16: FMA_X8_BF16, torch.float32: FMA_X8_FP32}


@dataclass(frozen=True)
class Cell:
    """`path` "best" is what this machine computes with, "fma8" what one with AVX2 does."""

    model: str
    dtype: str = "bfloat16"
    kv: str | None = None
    tp_size: int = 1
    path: str = "best"
    block_size: int = 16
    num_threads: int = 1

    def __str__(self) -> str:
        return (
            f"{self.model}-{self.dtype}-kv_{self.kv or 'same'}-tp{self.tp_size}-{self.path}"
            f"-b{self.block_size}-t{self.num_threads}"
        )


IN_EVERY_RUN = [
    Cell("random64", num_threads=2),
    Cell("random16", "float32", block_size=1),
    Cell("nano", kv="int8"),
    Cell("random16", path="fma8"),
    Cell("random64", tp_size=2),
]
ALL = [
    Cell(model, dtype, kv, tp_size, path, block_size)
    for model in ("random64", "random16", "nano")
    for dtype in ("bfloat16", "float32")
    for kv in (None, "int8")
    for tp_size in (1, 2)
    for path in ("best", "fma8")
    for block_size in (16, 1)
    # The other ranks are processes, in which no path can be forced.
    if not (tp_size == 2 and path != "best")
]
CELLS = [pytest.param(cell, id=str(cell)) for cell in IN_EVERY_RUN] + [
    pytest.param(cell, id=str(cell), marks=pytest.mark.chaos)
    for cell in ALL
    if cell not in IN_EVERY_RUN
]


def model_of(cell: Cell, directory: Path) -> str:
    if cell.model == "nano":
        return str(NANO)
    head_dim = HEAD_DIMS[cell.model]
    return str(make_checkpoint(directory / "model", head_dim=head_dim, layers=4, rotary_dim=16))


def fma8(dtype: torch.dtype, inputs: int) -> MulAdd:
    return FMA8[dtype]


def open_llm(cell: Cell, directory: Path) -> LLM:
    return LLM(
        model_of(cell, directory),
        tp_size=cell.tp_size,
        dtype=cell.dtype,
        kv_cache_dtype=cell.kv,
        block_size=cell.block_size,
        max_model_len=MAX_MODEL_LEN,
        kv_cache_bytes=2**26,
        num_threads=cell.num_threads,
    )


@pytest.fixture(scope="module", params=CELLS)
def bench(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    cell = request.param
    with ExitStack() as stack:
        if cell.path == "fma8":
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.setattr(pack, "best_mul_add", fma8)
        llm = stack.enter_context(open_llm(cell, tmp_path_factory.mktemp("same")))
        yield Bench(llm)


@pytest.mark.parametrize("way", WAYS)
def test_same_bytes(bench: Bench, way: str) -> None:
    found = differences(bench, WAYS[way](bench))
    assert not found, f"{len(found)} replies differ: " + "; ".join(found[:5])


def test_the_replies_are_worth_comparing(bench: Bench) -> None:
    replies = [tuple(token.token_id for token in reply.tokens) for reply in bench.alone]
    assert len(set(replies)) >= len(replies) - 2
    assert all(len(token.top_logprobs) == 20 for reply in bench.alone for token in reply.tokens)


class ByRows:
    """A product that cuts K in two for few rows, and not for many, as libraries do."""

    def __init__(self, weight: Weight, has_gelu: bool = False) -> None:
        self._whole = PanelLinear(weight, has_gelu)
        self._dense, self._has_gelu = weight.dense(), has_gelu

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        if len(x) >= 4 or self._has_gelu:
            return self._whole(x, residual)
        half, weight = x.shape[1] // 2, self._dense.weight.float()
        y = x[:, :half] @ weight[:, :half].T + x[:, half:] @ weight[:, half:].T
        y = y if self._dense.bias is None else y + self._dense.bias.float()
        return y if residual is None else y + residual


def kernels_by_rows(dtype: torch.dtype, head_dim: int) -> Kernels:
    return eager_kernels(dtype, ByRows, attend)


def test_a_linear_that_depends_on_the_rows_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(kernels.BACK_ENDS, "cpu", kernels_by_rows)
    with open_llm(Cell("random16", "float32"), tmp_path) as llm:
        bench = Bench(llm)
        for way in ("batched", "resumed", "cached_at_every_length"):
            assert differences(bench, WAYS[way](bench)), way
