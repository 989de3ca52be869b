"""Measures what a roofline needs of this machine: memory bandwidth and GEMM throughput.

It does not depend on a model.
"""

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from moss_tp.errors import ConfigError
from moss_tp.hardware.rates import GpuRates

READ_BYTES = 256 * 2**20  # far larger than any cache
GEMM_ROWS, GEMM_INPUTS, GEMM_OUTPUTS = 1024, 1024, 4096
MEASURE_S = 0.3


@dataclass(frozen=True)
class Machine:
    """`read_bytes_s` is the memory bandwidth. `flops_s` is the GEMM throughput in the faster of
    `dtype` and fp32, since kernels may compute in fp32 where the CPU lacks `dtype`."""

    cpu: str
    cores: int
    threads: int
    dtype: str
    read_bytes_s: float
    flops_s: float


@contextmanager
def torch_threads(num_threads: int) -> Iterator[None]:
    """Sets torch's intra-op threads for the length of the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def measure_machine(threads: int, dtype: str) -> Machine:
    """The best of the runs that fit into MEASURE_S, on `threads` threads. Takes under 2 s."""
    with torch_threads(threads):
        return Machine(
            cpu=_cpu_name(),
            cores=len(os.sched_getaffinity(0)),
            threads=threads,
            dtype=dtype,
            read_bytes_s=_read_bytes_s(),
            flops_s=max(_flops_s(torch.float32), _flops_s(getattr(torch, dtype))),
        )


def measure_rates(dtype: str) -> GpuRates:
    """Of the current GPU, in `dtype`. Leaves none of its memory in use. ConfigError without one."""
    if not torch.cuda.is_available():
        raise ConfigError("there is no CUDA device")
    from moss_tp.hardware.gpu import measure_gpu  # its kernel needs Triton

    rates = measure_gpu(torch.device("cuda"), dtype)
    torch.cuda.empty_cache()
    return rates


def _read_bytes_s() -> float:
    """Bandwidth of the fastest of three ways to read a large array once."""
    whole = torch.ones(READ_BYTES // 4)
    left, right = whole.chunk(2)
    matrix = whole.view(-1, 2**14)
    vector = torch.ones(2**14)
    reads: tuple[Callable[[], object], ...] = (
        whole.amax,
        lambda: torch.dot(left, right),
        lambda: torch.mv(matrix, vector),
    )
    return READ_BYTES / min(_best_s(read) for read in reads)


def _flops_s(dtype: torch.dtype) -> float:
    """Throughput of `x @ weight.T`; a multiply-add counts as two operations."""
    x = torch.ones(GEMM_ROWS, GEMM_INPUTS, dtype=dtype)
    weight = torch.ones(GEMM_OUTPUTS, GEMM_INPUTS, dtype=dtype)
    seconds = _best_s(lambda: torch.nn.functional.linear(x, weight))
    return 2 * GEMM_ROWS * GEMM_INPUTS * GEMM_OUTPUTS / seconds


def _best_s(run: Callable[[], object]) -> float:
    best, begin = float("inf"), time.perf_counter()
    while (start := time.perf_counter()) - begin < MEASURE_S:
        run()
        best = min(best, time.perf_counter() - start)
    return best


def _cpu_name() -> str:
    """The model name from /proc/cpuinfo, with the vector and bf16 instruction sets it has."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    values = {key.strip(): value.strip() for key, value in fields.items()}
    name = values.get("model name") or platform.processor() or platform.machine()
    flags = set(values.get("flags", "").split())
    known = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    return f"{name} ({', '.join(known)})" if known else name
