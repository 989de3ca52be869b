"""The same request gives the same ids and logprobs, to the bit, by every way through the engine.

A cell is a model as one engine runs it; it loads once, and every way of `WAYS` compares 24 requests
with what each replies alone. `make test` runs some cells, `make chaos` all; both again in kernels
compiled for other processors. The reference kernels are outside the promise: no cell may run on
them.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from moss_tp import LLM, kernels
from moss_tp.kernels.base import Kernels, Weight
from moss_tp.kernels.cpu.attention.attend import attend
from moss_tp.kernels.cpu.linear.panel import PanelLinear
from moss_tp.kernels.reference.block import eager_kernels
from moss_tp.native.vectors import has_cpu_feature
from tests.moss_tp.quantized_moss import Gptq, make_quantized
from tests.support.same_bytes import MAX_MODEL_LEN, WAYS, Bench, differences
from tests.support.tiny_moss import make_checkpoint

NANO = Path(__file__).parents[3] / "serve_app/demo/moss_nano"
HEAD_DIMS = {"random64": 64, "random16": 16, "nano": 64, "int4": 64, "int8": 64, "int4-order": 64}
QUANTIZED = {
    "int4": Gptq(group_size=32, is_symmetric=True),
    "int8": Gptq(bits=8, group_size=-1, lm_head=True),
    "int4-order": Gptq(act_order=True),
}
AVX2 = "+avx2,+fma,+f16c,+bmi,+bmi2"
AVX512 = f"{AVX2},+avx512f,+avx512bw,+avx512cd,+avx512dq,+avx512vl"
# What Numba compiles for: without AMX, without dot products of bf16, and without AVX-512.
PROCESSORS = {
    "dot": {"NUMBA_CPU_NAME": "cooperlake", "NUMBA_CPU_FEATURES": f"{AVX512},+avx512bf16"},
    "fma16": {"NUMBA_CPU_NAME": "skylake-avx512", "NUMBA_CPU_FEATURES": AVX512},
    "fma8": {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": AVX2},
}


@dataclass(frozen=True)
class Cell:
    model: str
    dtype: str = "bfloat16"
    kv: str | None = None
    tp_size: int = 1
    block_size: int = 16
    num_threads: int = 1
    lm_head_bits: int | None = None

    def __str__(self) -> str:
        head = "-head8" if self.lm_head_bits else ""
        return (
            f"{self.model}-{self.dtype}-kv_{self.kv or 'same'}-tp{self.tp_size}"
            f"-block{self.block_size}-threads{self.num_threads}{head}"
        )


IN_EVERY_RUN = (
    Cell("random64"),
    Cell("random16"),
    Cell("random16", "float32", block_size=1),
    Cell("nano", kv="int8"),
    Cell("random64", tp_size=2),
    Cell("int4-order", num_threads=2, lm_head_bits=8),
)
OTHERS = [Cell("random64", num_threads=2)] + [
    cell
    for model in HEAD_DIMS
    for dtype in ("bfloat16", "float32", "float16")
    for kv in (None, "int8")
    for tp_size in (1, 2)
    for block_size in (16, 1)
    if (cell := Cell(model, dtype, kv, tp_size, block_size)) not in IN_EVERY_RUN
    and not (model in QUANTIZED and (kv or block_size == 1))
]
CELLS = [pytest.param(cell, id=str(cell)) for cell in IN_EVERY_RUN]
CELLS += [pytest.param(cell, id=str(cell), marks=pytest.mark.chaos) for cell in OTHERS]


def model_of(cell: Cell, directory: Path) -> str:
    if cell.model == "nano":
        return str(NANO)
    head_dim = HEAD_DIMS[cell.model]
    if cell.model in QUANTIZED:
        form = QUANTIZED[cell.model]
        return str(
            make_quantized(directory / "model", form, layers=4, head_dim=head_dim, rotary_dim=16)
        )
    return str(make_checkpoint(directory / "model", head_dim=head_dim, layers=4, rotary_dim=16))


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
        lm_head_bits=cell.lm_head_bits,
    )


@pytest.fixture(scope="module", params=CELLS)
def bench(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    cell: Cell = request.param
    dtype: torch.dtype = getattr(torch, cell.dtype)
    head_dim = HEAD_DIMS[cell.model]
    chosen = kernels.choose_kernels("cpu", dtype, head_dim)
    assert chosen.chain is not None, "it runs on the reference kernels, which promise nothing"
    with open_llm(cell, tmp_path_factory.mktemp("same")) as llm:
        yield Bench(llm)


@pytest.mark.parametrize("way", WAYS)
def test_same_bytes(bench: Bench, way: str) -> None:
    found = differences(bench, WAYS[way](bench))
    assert not found, f"{len(found)} replies differ: " + "; ".join(found[:5])


def test_the_replies_are_worth_comparing(bench: Bench) -> None:
    replies = [tuple(token.token_id for token in reply.tokens) for reply in bench.alone]
    assert len(set(replies)) >= len(replies) - 2
    assert all(len(token.top_logprobs) == 20 for reply in bench.alone for token in reply.tokens)


def run_on(processor: str, *arguments: str) -> None:
    """The cells again, with kernels compiled for another processor."""
    test = f"{__file__}::test_same_bytes"
    pytest_run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test, *arguments]
    done = subprocess.run(
        pytest_run,
        env=os.environ | PROCESSORS[processor],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "skipped" not in done.stdout.splitlines()[-1]


@pytest.mark.skipif(not has_cpu_feature("avx512f"), reason="this is such a processor")
def test_on_a_processor_without_avx512() -> None:
    run_on("fma8", "-m", "not chaos", "-k", "random16")


@pytest.mark.chaos
@pytest.mark.timeout(4 * 3600)
@pytest.mark.skipif(not has_cpu_feature("avx512f"), reason="this processor cannot run them")
@pytest.mark.parametrize("processor", PROCESSORS)
def test_all_cells_on_other_processors(processor: str) -> None:
    if processor == "dot" and not has_cpu_feature("avx512bf16"):
        pytest.skip("this processor has no dot products of bf16")
    run_on(processor, "-m", "chaos or not chaos")


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
