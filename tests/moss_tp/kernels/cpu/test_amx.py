"""AMX against its arithmetic as Intel's manual has it, number by number."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from moss_tp.kernels.base import DenseWeight
from moss_tp.kernels.cpu.linear.gemm_kernel import K_BLOCK_BYTES, MAX_TASK_ROWS
from moss_tp.kernels.cpu.linear.pack import best_mul_add, inputs_at_once, pack_dense
from moss_tp.kernels.cpu.linear.panel import PanelLinear
from moss_tp.kernels.cpu.microkernel.mul_add import (
    AMX_X16_BF16,
    DOT_X16_BF16,
    FMA_X8_BF16,
    GROUP_PANELS,
)
from moss_tp.kernels.leaves import leaf_spans
from moss_tp.native import amx
from moss_tp.native.compiled import python_callable
from moss_tp.native.sources import register_sources
from moss_tp.native.vectors import has_cpu_feature
from tests.moss_tp.kernels.quantized_case import quantized_case

register_sources(__file__)

needs_amx = pytest.mark.skipif(not amx.has_amx(), reason="this processor has no AMX")
CHUNK = inputs_at_once(AMX_X16_BF16)
BLOCK = K_BLOCK_BYTES // (GROUP_PANELS * AMX_X16_BF16.panel_step_bytes) * AMX_X16_BF16.x_per_step
ROWS = [1, 2, 15, 16, 17, 31, 32, 33, 48, 49, MAX_TASK_ROWS, MAX_TASK_ROWS + 1]


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).bfloat16()


def manual(x: Tensor, weight: Tensor) -> Tensor:
    """Chunk by chunk: a sum of the even inputs' products and one of the odd ones'."""
    wide_x, wide_w = x.double().numpy(), weight.double().numpy()
    total = np.zeros((len(x), len(weight)), np.float32)
    for first in range(0, x.shape[1], CHUNK):
        even, odd = np.zeros_like(total), np.zeros_like(total)
        for i in range(first, first + CHUNK, 2):  # a product of bf16 is exact in fp64
            even = (even + np.outer(wide_x[:, i], wide_w[:, i])).astype(np.float32)
            odd = (odd + np.outer(wide_x[:, i + 1], wide_w[:, i + 1])).astype(np.float32)
        total += even + odd
    return torch.from_numpy(total)


@needs_amx
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("outputs, inputs", [(1, CHUNK), (65, 3 * CHUNK), (130, BLOCK + CHUNK)])
def test_every_sum_is_that_of_the_manual(rows: int, outputs: int, inputs: int) -> None:
    x, weight = random(rows, inputs), random(outputs, inputs)
    linear = PanelLinear(DenseWeight(weight), mul_add=AMX_X16_BF16)
    assert torch.equal(linear(x), manual(x, weight))


@needs_amx
def test_strided_rows_and_what_comes_after_the_sum() -> None:
    wide, weight, bias = random(40, 200), random(70, 96), random(70)
    x, residual = wide[:, 32:128], torch.randn(40, 70)
    linear = PanelLinear(DenseWeight(weight, bias), True, AMX_X16_BF16)
    y = F.gelu(manual(x, weight) + bias.float(), approximate="tanh") + residual
    torch.testing.assert_close(linear(x, residual), y, atol=1e-5, rtol=1e-5)


def configure_and_read(config: int, read: int) -> None:
    amx.configure_tiles(config)
    amx.store_tile_config(read)


def read_config(address: int) -> None:
    amx.store_tile_config(address)


@needs_amx
@pytest.mark.parametrize("rows", [1, 3, 40])
@pytest.mark.parametrize("bits", [16, 4])
def test_tiles_are_released(bits: int, rows: int) -> None:
    """A thread that has tiles would keep them, 8 KiB, at each change of threads."""
    quantized = quantized_case(4, 64, 64, 1, seed=1)
    weight = DenseWeight(random(64, 64)) if bits == 16 else quantized
    linear, found = PanelLinear(weight, mul_add=AMX_X16_BF16), np.ones(64, np.uint8)
    config = amx.tile_config((16,) * amx.NUM_TILES)
    compiled = python_callable("void(int64, int64)")(configure_and_read)
    compiled(config.ctypes.data, found.ctypes.data)
    assert np.array_equal(found, config)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        linear(random(rows, 64).float())
    finally:
        torch.set_num_threads(before)
    python_callable("void(int64)")(read_config)(found.ctypes.data)
    assert not found.any()


def test_inputs_that_are_no_whole_chunks_take_other_products() -> None:
    assert (best_mul_add(torch.bfloat16, CHUNK) is AMX_X16_BF16) == amx.has_amx()
    has_dot = has_cpu_feature("avx512bf16")
    assert best_mul_add(torch.bfloat16, CHUNK // 2) is (DOT_X16_BF16 if has_dot else FMA_X8_BF16)
    with pytest.raises(ValueError, match="taken at once"):
        pack_dense(DenseWeight(random(64, CHUNK + 2)), AMX_X16_BF16)


@pytest.mark.parametrize("width, inner", [(128, 512), (64, 512), (48, 192)])
def test_any_number_of_ranks_takes_the_same_products(width: int, inner: int) -> None:
    """A rank's own leaves lie side by side, and what follows on each other is joined."""
    weight, leaves = random(64, width + inner), leaf_spans(width, inner, 4)
    whole = pack_dense(DenseWeight(weight), leaves=leaves)
    rank_leaves = leaf_spans(width // 4, inner // 4, 1)
    part = pack_dense(DenseWeight(weight[:, : (width + inner) // 4]), leaves=rank_leaves)
    assert len(part.spans) == 1 < len(whole.spans)
    assert part.mul_add is whole.mul_add


def test_a_process_that_may_not_use_tiles_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amx, "_may_use_tiles", lambda: False)
    amx.has_amx.cache_clear()
    try:
        assert not amx.has_amx()
        assert best_mul_add(torch.bfloat16, CHUNK) is not AMX_X16_BF16
        weight = pack_dense(DenseWeight(random(64, CHUNK)), AMX_X16_BF16)
        with pytest.raises(RuntimeError, match="may not use"):
            PanelLinear.over(weight)
    finally:
        amx.has_amx.cache_clear()
