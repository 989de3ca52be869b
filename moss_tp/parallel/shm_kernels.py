"""Numba kernels on memory that several processes share: posting, waiting, copying and adding.

    a flag, alone on its cache line:  | posted: int64 | sleepers: int64 | ...

A rank counts up `posted` of its own flag, and others wait for a count: they spin for a while,
then sleep on it as a futex. Addresses are int64 throughout. It knows no tensors and no protocol,
and holds for x86-64 on Linux only.
"""

from typing import Any

import numpy as np
from numba import types as numba_types

from moss_tp.native.compiled import called, exact
from moss_tp.native.simd import (
    BF16_BYTES,
    FP32_BYTES,
    as_bits,
    as_float,
    bytes_at,
    exchange,
    fetch_add,
    floats_at,
    halves_at,
    load_acquire,
    read_cycles,
    relax,
    round_to_bf16,
    widen,
    yield_core,
)

types: Any = numba_types  # Numba's own annotations say too little

FP32, BF16, FP16 = 0, 1, 2  # kinds of elements

LINE = 128  # bytes: two cache lines, which the hardware fetches as a pair
POSTED, SLEEPERS = 0, 8
LONG_CYCLES = 500_000  # about 0.2 ms: a peer that does its part of the step comes within it

_SYS_FUTEX, _WAIT, _WAKE, _ALL = 202, 0, 1, 2**31 - 1
_syscall = types.ExternalFunction("syscall", types.int64(*[types.int64] * 7))

_u32 = types.uint32
_ADD_BLOCK = 1024  # elements whose fp32 sums stay in the first cache


@exact
def _sleep(flag: int, count: int, nap: int) -> Any:
    """Whether `count` is posted after at most one nap."""
    fetch_add(flag + SLEEPERS, 1)
    seen = load_acquire(flag + POSTED)
    if seen < count:  # the kernel goes to sleep only if the lower half is still what was seen
        _syscall(_SYS_FUTEX, flag + POSTED, _WAIT, seen & 0xFFFFFFFF, nap, 0, 0)
    fetch_add(flag + SLEEPERS, -1)
    return load_acquire(flag + POSTED) >= count


@exact
def _copy(target: int, source: int, num_bytes: int) -> None:
    to, what = bytes_at(target), bytes_at(source)
    for i in range(num_bytes):
        to[i] = what[i]


@called("void(int64, int64, int64, int64, int64)")
def publish(target: int, source: int, num_bytes: int, flag: int, count: int) -> None:
    """Copies, sets `posted` of the flag, and wakes who sleeps on it."""
    _copy(target, source, num_bytes)
    exchange(flag + POSTED, count)  # a plain store would let the load of `sleepers` overtake it
    if load_acquire(flag + SLEEPERS) > 0:
        _syscall(_SYS_FUTEX, flag + POSTED, _WAKE, _ALL, 0, 0, 0)


@called("void(int64, int64, int64)")
def copy(target: int, source: int, num_bytes: int) -> None:
    _copy(target, source, num_bytes)


@called("int64(int64, int64, int64, int64, int64, int64)")
def first_missing(flags: int, start: int, stop: int, count: int, spin: int, nap: int) -> int:
    """Waits until flags `start:stop` have posted `count`; the first that has not, or -1.

    Spins for `spin` cycles, then sleeps once, for the timespec at `nap` at most (0: not at all).
    Who spins for long offers its core to others all the time.
    """
    begin = read_cycles()
    for index in range(start, stop):
        flag = flags + index * LINE
        while load_acquire(flag + POSTED) < count:
            waited = read_cycles() - begin
            if waited < min(spin, LONG_CYCLES):
                relax()
            elif waited < spin:
                yield_core()
            elif nap == 0 or not _sleep(flag, count, nap):
                return index
    return -1


# fp16 by the bits, as not every processor converts it. Both after Fabian Giesen's public-domain
# conversions: a half's bits, moved up, are a float whose exponent is too small by 112.
@exact
def _from_fp16(half: int) -> Any:
    moved = (_u32(half) & _u32(0x7FFF)) << _u32(13)
    bits = as_bits(as_float(moved) * as_float(_u32(0x77800000)))  # 2**112
    bits |= _u32(0x7F800000) if moved >= _u32(0x0F800000) else _u32(0)  # infinity, NaN
    return as_float(bits | ((_u32(half) & _u32(0x8000)) << _u32(16)))


@exact
def _to_fp16(value: float) -> Any:
    bits = as_bits(value)
    size = bits & _u32(0x7FFFFFFF)
    normal = (size + _u32(0xC8000FFF) + ((size >> _u32(13)) & _u32(1))) >> _u32(13)
    # Adding 0.5 leaves a subnormal half, rounded, in the lowest bits.
    subnormal = as_bits(as_float(size) + as_float(_u32(0x3F000000))) - _u32(0x3F000000)
    large = _u32(0x7E00) if size > _u32(0x7F800000) else _u32(0x7C00)
    half = subnormal if size < _u32(0x38800000) else normal
    half = large if size >= _u32(0x47800000) else half
    return types.uint16(half | ((bits >> _u32(16)) & _u32(0x8000)))


@exact
def _add_part(sums: Any, source: int, length: int, kind: int) -> None:
    floats, halves = floats_at(source), halves_at(source)
    if kind == FP32:
        for i in range(length):
            sums[i] += floats[i]
    elif kind == BF16:
        for i in range(length):
            sums[i] += widen(halves[i])
    else:
        for i in range(length):
            sums[i] += _from_fp16(halves[i])


@exact
def _round(target: int, sums: Any, length: int, kind: int) -> None:
    floats, halves = floats_at(target), halves_at(target)
    if kind == FP32:
        for i in range(length):
            floats[i] = sums[i]
    elif kind == BF16:
        for i in range(length):
            halves[i] = round_to_bf16(sums[i])
    else:
        for i in range(length):
            halves[i] = _to_fp16(sums[i])


@called("void(int64, int64, int64, int64, int64, int64)")
def add(target: int, first: int, stride: int, num_parts: int, count: int, kind: int) -> None:
    """Sums `num_parts` runs of `count` elements, the runs `stride` bytes apart.

    In fp32 and in the order of the parts, so that every rank gets the same bits.
    """
    width = FP32_BYTES if kind == FP32 else BF16_BYTES
    sums = np.empty(_ADD_BLOCK, np.float32)
    for start in range(0, count, _ADD_BLOCK):
        length = min(_ADD_BLOCK, count - start)
        sums[:] = np.float32(-0.0)  # plus x it is x, even where that is -0.0
        for part in range(num_parts):
            _add_part(sums, first + part * stride + start * width, length, kind)
        _round(target + start * width, sums, length, kind)
