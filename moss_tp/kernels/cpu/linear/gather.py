"""What a quantized product needs of x beforehand: its inputs in another order, and sums of runs.

Both only where a weight asks for it: one with act-order or cut groups, one whose zeros are not all
in the middle. A task is a part of a row.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from moss_tp.kernels.cpu.linear.levels import UNIT
from moss_tp.kernels.cpu.runtime.program import Program
from moss_tp.native.bf16 import bf16_to_fp32
from moss_tp.native.compiled import kernel_on_demand
from moss_tp.native.llvm import BF16_BYTES, FP32_BYTES
from moss_tp.native.memory import fp32_at, int32_at, int64_at, uint16_at
from moss_tp.native.params import Address, params_reader

GATHERED = 2048  # inputs of a task
SUMMED = 16  # runs of a task


class GatherParams(NamedTuple):
    x: Address
    x_stride: int  # bytes
    order: Address  # (length,) int32; negative for a zero
    length: int  # of `order`
    parts: int  # tasks of a row
    out: Address  # (T, length), contiguous
    is_bf16: int


class SumParams(NamedTuple):
    x: Address
    x_stride: int  # bytes
    starts: Address  # (runs + 1,) int64, in units of the weight
    x_starts: Address  # (runs,) int64, in units of x
    num_runs: int
    parts: int  # tasks of a row
    out: Address  # (T, runs) fp32, contiguous
    is_bf16: int


_read_gather, _read_sum = params_reader(GatherParams), params_reader(SumParams)


def add_gather(program: Program, x: Tensor, order: Tensor) -> Tensor:
    """`x (T, inputs)`, in bf16 or fp32, `-> (T, length)`: its columns in `order`."""
    out, parts = torch.empty(len(x), len(order), dtype=x.dtype), -(-len(order) // GATHERED)
    params = GatherParams(
        x, x.stride(0) * x.itemsize, order, len(order), parts, out, int(x.itemsize == BF16_BYTES)
    )
    program.add(_gather(), len(x) * parts, params)
    return out


def add_run_sums(program: Program, x: Tensor, starts: Tensor, x_starts: Tensor) -> Tensor:
    """`x (T, inputs)`, in bf16 or fp32, `-> (T, runs)` fp32: its sum over each run; see
    `quantized_pack.Runs`."""
    num_runs = len(starts) - 1
    out, parts = torch.empty(len(x), num_runs), -(-num_runs // SUMMED)
    params = SumParams(
        x, x.stride(0) * x.itemsize, starts, x_starts, num_runs, parts, out,
        int(x.itemsize == BF16_BYTES),
    )  # fmt: skip
    program.add(_sum_runs(), len(x) * parts, params)
    return out


@kernel_on_demand
def _gather(params: int, task: int) -> None:
    p = _read_gather(params)
    row, start = task // p.parts, task % p.parts * GATHERED
    stop = min(start + GATHERED, p.length)
    order, source = int32_at(p.order), p.x + row * p.x_stride
    if p.is_bf16:
        x_bf16, out_bf16 = uint16_at(source), uint16_at(p.out + row * p.length * BF16_BYTES)
        for i in range(start, stop):
            out_bf16[i] = x_bf16[order[i]] if order[i] >= 0 else np.uint16(0)
    else:
        x_fp32, out_fp32 = fp32_at(source), fp32_at(p.out + row * p.length * FP32_BYTES)
        for i in range(start, stop):
            out_fp32[i] = x_fp32[order[i]] if order[i] >= 0 else np.float32(0)


@kernel_on_demand
def _sum_runs(params: int, task: int) -> None:
    p = _read_sum(params)
    row, first = task // p.parts, task % p.parts * SUMMED
    starts, x_starts, source = int64_at(p.starts), int64_at(p.x_starts), p.x + row * p.x_stride
    out = fp32_at(p.out + row * p.num_runs * FP32_BYTES)
    for run in range(first, min(first + SUMMED, p.num_runs)):
        total, begin = np.float32(0), x_starts[run] * UNIT
        end = begin + (starts[run + 1] - starts[run]) * UNIT
        if p.is_bf16:
            x_bf16 = uint16_at(source)
            for i in range(begin, end):
                total += bf16_to_fp32(x_bf16[i])
        else:
            x_fp32 = fp32_at(source)
            for i in range(begin, end):
                total += x_fp32[i]
        out[run] = total
