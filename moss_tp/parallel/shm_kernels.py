"""Numba kernels on memory that several processes share: posting, waiting, copying and summing.

    a flag, alone on its cache line:  | posted: int64 | sleepers: int64 | ...

A rank increments `posted` of its own flag; others wait until it reaches a count. They spin for a
while, then sleep on it as a futex. Addresses are int64 throughout. Correct on x86-64
Linux only. The protocol is in `shm`.
"""

from typing import Any

import numpy as np
from numba import types as numba_types

from moss_tp.native.atomics import exchange, fetch_add, load_acquire, read_cycles, relax, yield_core
from moss_tp.native.bf16 import bf16_to_fp32, fp32_from_bits, fp32_to_bf16, fp32_to_bits
from moss_tp.native.compiled import exact_inner, python_callable
from moss_tp.native.dtypes import BF16, FP32
from moss_tp.native.llvm import BF16_BYTES, FP32_BYTES
from moss_tp.native.memory import fp32_at, uint8_at, uint16_at
from moss_tp.native.sources import register_sources

register_sources(__file__)

types: Any = numba_types  # only partly typed

FLAG_BYTES = 128  # two cache lines, which the hardware fetches as a pair
POSTED, SLEEPERS = 0, 8  # offsets in a flag
SPIN_BEFORE_YIELD = 500_000  # cycles, about 0.2 ms: a peer that is in the same step takes less

_SYS_FUTEX, _WAIT, _WAKE, _ALL = 202, 0, 1, 2**31 - 1
_syscall = types.ExternalFunction("syscall", types.int64(*[types.int64] * 7))

_u32 = types.uint32
_SUM_BLOCK = 1024  # elements whose fp32 sums stay in the L1 cache
_MAX_DEPTH = 16  # of a tree of ranks


@exact_inner
def _sleep(flag: int, count: int, timeout: int) -> Any:
    """Sleeps once, for the timespec at `timeout` at most; whether `count` is posted then."""
    fetch_add(flag + SLEEPERS, 1)
    seen = load_acquire(flag + POSTED)
    if seen < count:  # the futex sleeps only if the lower half is still what we saw
        _syscall(_SYS_FUTEX, flag + POSTED, _WAIT, seen & 0xFFFFFFFF, timeout, 0, 0)
    fetch_add(flag + SLEEPERS, -1)
    return load_acquire(flag + POSTED) >= count


@exact_inner
def _copy(target: int, source: int, num_bytes: int) -> None:
    target_bytes, source_bytes = uint8_at(target), uint8_at(source)
    for i in range(num_bytes):
        target_bytes[i] = source_bytes[i]


@python_callable("void(int64, int64, int64, int64, int64)")
def publish(target: int, source: int, num_bytes: int, flag: int, count: int) -> None:
    """Copies, sets `posted` of the flag to `count`, and wakes the ranks that sleep on it."""
    _copy(target, source, num_bytes)
    exchange(flag + POSTED, count)  # after a plain store, `sleepers` could be loaded too early
    if load_acquire(flag + SLEEPERS) > 0:
        _syscall(_SYS_FUTEX, flag + POSTED, _WAKE, _ALL, 0, 0, 0)


@python_callable("void(int64, int64, int64)")
def copy(target: int, source: int, num_bytes: int) -> None:
    _copy(target, source, num_bytes)


@python_callable("int64(int64, int64, int64, int64, int64, int64)")
def first_missing(flags: int, start: int, stop: int, count: int, spin: int, timeout: int) -> int:
    """Waits until flags `start:stop` have posted `count`; the first that has not, or -1.

    Spins for `spin` cycles, then sleeps once, for the timespec at `timeout` at most (0: does not
    sleep). A long spin yields its core between looks.
    """
    begin = read_cycles()
    for index in range(start, stop):
        flag = flags + index * FLAG_BYTES
        while load_acquire(flag + POSTED) < count:
            waited = read_cycles() - begin
            if waited < min(spin, SPIN_BEFORE_YIELD):
                relax()
            elif waited < spin:
                yield_core()
            elif timeout == 0 or not _sleep(flag, count, timeout):
                return index
    return -1


# fp16 by its bits, as not every processor converts it. Both after Fabian Giesen's public-domain
# conversions: an fp16's bits, shifted, are an fp32 whose exponent is too small by 112.
@exact_inner
def _fp16_to_fp32(fp16: int) -> Any:
    shifted = (_u32(fp16) & _u32(0x7FFF)) << _u32(13)
    bits = fp32_to_bits(fp32_from_bits(shifted) * fp32_from_bits(_u32(0x77800000)))  # 2**112
    bits |= _u32(0x7F800000) if shifted >= _u32(0x0F800000) else _u32(0)  # infinity, NaN
    return fp32_from_bits(bits | ((_u32(fp16) & _u32(0x8000)) << _u32(16)))


@exact_inner
def _fp32_to_fp16(value: float) -> Any:
    bits = fp32_to_bits(value)
    size = bits & _u32(0x7FFFFFFF)
    normal = (size + _u32(0xC8000FFF) + ((size >> _u32(13)) & _u32(1))) >> _u32(13)
    # Adding 0.5 leaves a subnormal fp16, rounded, in the lowest bits.
    half = _u32(0x3F000000)
    subnormal = fp32_to_bits(fp32_from_bits(size) + fp32_from_bits(half)) - half
    large = _u32(0x7E00) if size > _u32(0x7F800000) else _u32(0x7C00)
    fp16 = subnormal if size < _u32(0x38800000) else normal
    fp16 = large if size >= _u32(0x47800000) else fp16
    return types.uint16(fp16 | ((bits >> _u32(16)) & _u32(0x8000)))


@exact_inner
def _load(values: Any, source: int, length: int, dtype: int) -> None:
    fp32s, uint16s = fp32_at(source), uint16_at(source)
    if dtype == FP32:
        for i in range(length):
            values[i] = fp32s[i]
    elif dtype == BF16:
        for i in range(length):
            values[i] = bf16_to_fp32(uint16s[i])
    else:
        for i in range(length):
            values[i] = _fp16_to_fp32(uint16s[i])


@exact_inner
def _add(sums: Any, others: Any, length: int) -> None:
    for i in range(length):
        sums[i] += others[i]


@exact_inner
def _store(target: int, sums: Any, length: int, dtype: int) -> None:
    fp32s, uint16s = fp32_at(target), uint16_at(target)
    if dtype == FP32:
        for i in range(length):
            fp32s[i] = sums[i]
    elif dtype == BF16:
        for i in range(length):
            uint16s[i] = fp32_to_bf16(sums[i])
    else:
        for i in range(length):
            uint16s[i] = _fp32_to_fp16(sums[i])


@python_callable("void(int64, int64, int64, int64, int64, int64)")
def sum_parts(target: int, first: int, stride: int, num_parts: int, count: int, dtype: int) -> None:
    """Sums `num_parts` arrays of `count` elements (FP32, BF16 or FP16), `stride` bytes apart.

    In fp32 and as a tree: neighbours, then their sums, an odd last one carried up. So every rank
    gets the same bits.
    """
    width = FP32_BYTES if dtype == FP32 else BF16_BYTES
    sums = np.empty((_MAX_DEPTH, _SUM_BLOCK), np.float32)  # of subtrees that wait for a neighbour
    for start in range(0, count, _SUM_BLOCK):
        length = min(_SUM_BLOCK, count - start)
        top = -1
        for part in range(num_parts):
            top += 1
            _load(sums[top], first + part * stride + start * width, length, dtype)
            subtrees = part
            is_last = part == num_parts - 1
            while top > 0 and (is_last or subtrees & 1):
                _add(sums[top - 1], sums[top], length)
                top -= 1
                subtrees >>= 1
        _store(target + start * width, sums[0], length, dtype)
