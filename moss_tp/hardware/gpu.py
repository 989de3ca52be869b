"""Measures a GPU's limits: memory bandwidth, matrix products, the way from the host's memory.

It also runs on the CPU, on small tensors, so that its code is tested without a GPU.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from moss_tp.hardware.rates import GpuRates
from moss_tp.hardware.timing import median_s
from moss_tp.kernels.cuda.runtime.read import read_sums

GIB = 1 << 30
MEMORY_BYTES = 4 * GIB  # far more than any cache
PINNED_BYTES = GIB
READS = ((4096, 1), (8192, 1), (8192, 4), (16384, 1))  # blocks and loops of `read_sums`
# Outputs and inputs of the products of MOSS's parallel block, 16.7 B parameters, and rows of a
# prompt.
MOSS_PRODUCTS = ((43008, 6144), (6144, 30720))
PROMPT_ROWS = (1024, 2048)


def measure_gpu(
    device: torch.device,
    dtype: str,
    memory_bytes: int = MEMORY_BYTES,
    pinned_bytes: int = PINNED_BYTES,
    products: Sequence[tuple[int, int]] = MOSS_PRODUCTS,
    rows: Sequence[int] = PROMPT_ROWS,
) -> GpuRates:
    """Takes about 2 seconds and twice `memory_bytes` of the device."""
    torch_dtype: torch.dtype = getattr(torch, dtype)
    return GpuRates(
        card=card_name(device),
        dtype=dtype,
        copy_bytes_s=_copy_rate(device, memory_bytes),
        read_bytes_s=_read_rate(device, memory_bytes),
        flops_s=max(_product_rate(device, torch_dtype, m, *p) for p in products for m in rows),
        pinned_bytes_s=_pinned_rate(device, pinned_bytes),
    )


def card_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def first_card_name() -> str:
    """Of the card that a process uses without asking for one."""
    return card_name(torch.device("cuda"))


def _copy_rate(device: torch.device, num_bytes: int) -> float:
    source = _numbers(device, num_bytes)
    to = torch.empty_like(source)
    return 2 * source.nbytes / median_s(lambda: to.copy_(source), device)


def _read_rate(device: torch.device, num_bytes: int) -> float:
    x = _numbers(device, num_bytes)
    fastest = min(median_s(lambda: read_sums(x, *read), device) for read in READS)  # noqa: B023
    return x.nbytes / fastest


def _numbers(device: torch.device, num_bytes: int) -> Tensor:
    """Random, for hardware may be faster on zeros."""
    return torch.randint(-(2**31), 2**31 - 1, (num_bytes // 4,), dtype=torch.int32, device=device)


def _product_rate(
    device: torch.device, dtype: torch.dtype, rows: int, outputs: int, inputs: int
) -> float:
    x = torch.randn(rows, inputs, dtype=dtype, device=device)
    weight = torch.randn(outputs, inputs, dtype=dtype, device=device)
    to = torch.empty(rows, outputs, dtype=dtype, device=device)
    seconds = median_s(lambda: torch.mm(x, weight.T, out=to), device)
    return 2 * rows * outputs * inputs / seconds


def _pinned_rate(device: torch.device, num_bytes: int) -> float:
    source = torch.ones(num_bytes, dtype=torch.uint8, pin_memory=device.type == "cuda")
    to = torch.empty(num_bytes, dtype=torch.uint8, device=device)
    return num_bytes / median_s(lambda: to.copy_(source, non_blocking=True), device, repeats=5)
