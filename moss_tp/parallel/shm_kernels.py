"""Numba kernels on memory that several processes share: posting, waiting, copying and adding.

    a flag, alone on its cache line:  | posted: int64 | sleepers: int64 | ...

A rank counts up `posted` of its own flag, and others wait for a count: they spin for a while,
then sleep on it as a futex. Addresses are int64 throughout. It knows no tensors and no protocol,
and holds for x86-64 on Linux only.

All in one file, since Numba's cache of a kernel watches only the file that the kernel is in.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit
from numba import types as numba_types
from numba.core import cgutils as numba_cgutils
from numba.extending import intrinsic

FP32, BF16, FP16 = 0, 1, 2  # kinds of elements
# Numba's own annotations say too little.
types: Any = numba_types
cgutils: Any = numba_cgutils

LINE = 128  # bytes: two cache lines, which the hardware fetches as a pair
POSTED, SLEEPERS = 0, 8

_SYS_FUTEX, _WAIT, _WAKE, _ALL = 202, 0, 1, 2**31 - 1
_syscall = types.ExternalFunction("syscall", types.int64(*[types.int64] * 7))

_I64 = ir.IntType(64)
_u32 = types.uint32
_ADD_BLOCK = 1024  # elements whose fp32 sums stay in the first cache


def _kernel(*signatures: str) -> Callable[[Callable[..., Any]], Any]:
    """Compiled once for this machine, without the GIL; kept on disk where there is a place."""

    def compile_now(function: Callable[..., Any]) -> Any:
        try:
            return njit(list(signatures), nogil=True, cache=True)(function)
        except RuntimeError:  # Numba found no directory that it may write
            return njit(list(signatures), nogil=True)(function)

    return compile_now


def _inner(function: Callable[..., Any]) -> Any:
    """For what kernels call: compiled into each of them."""
    return njit(function)


def _instruction(function: Callable[..., Any]) -> Any:
    return intrinsic(function)


def _pointer_to(element: Any) -> Any:
    @_instruction
    def pointer_to(context: Any, address: Any) -> Any:
        pointer = types.CPointer(element)

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(pointer))

        return pointer(types.int64), codegen

    return pointer_to


_bytes_at = _pointer_to(types.uint8)
_floats_at = _pointer_to(types.float32)
_halves_at = _pointer_to(types.uint16)


@_instruction
def _load(context: Any, address: Any) -> Any:
    """The int64 at `address`; nothing after it is read before it."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], _I64.as_pointer())
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(types.int64), codegen


def _read_modify_write(operation: str) -> Any:
    @_instruction
    def modify(context: Any, address: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer = builder.inttoptr(arguments[0], _I64.as_pointer())
            return builder.atomic_rmw(operation, pointer, arguments[1], "seq_cst")

        return types.int64(types.int64, types.int64), codegen

    return modify


# Both are full barriers: whatever was written before is seen before, and nothing later is read
# before. A plain store would let the load of `sleepers` overtake it.
_exchange = _read_modify_write("xchg")
_add = _read_modify_write("add")


def _no_arguments(name: str, result: Any, llvm_result: Any) -> Any:
    """LLVM's intrinsic `name`."""

    @_instruction
    def call(context: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            function_type = ir.FunctionType(llvm_result, [])
            function = cgutils.get_or_insert_function(builder.module, function_type, name)
            value = builder.call(function, [])
            return context.get_dummy_value() if result is types.void else value

        return result(), codegen

    return call


_pause = _no_arguments("llvm.x86.sse2.pause", types.void, ir.VoidType())
_cycles = _no_arguments("llvm.readcyclecounter", types.int64, _I64)


def _reinterpret(source: Any, target: Any) -> Any:
    @_instruction
    def reinterpret(context: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], context.get_value_type(target))

        return target(source), codegen

    return reinterpret


_as_float = _reinterpret(types.uint32, types.float32)
_as_bits = _reinterpret(types.float32, types.uint32)


@_inner
def _sleep(flag: int, count: int, nap: int) -> Any:
    """Whether `count` is posted after at most one nap."""
    _add(flag + SLEEPERS, 1)
    seen = _load(flag + POSTED)
    if seen < count:  # the kernel goes to sleep only if the lower half is still what was seen
        _syscall(_SYS_FUTEX, flag + POSTED, _WAIT, seen & 0xFFFFFFFF, nap, 0, 0)
    _add(flag + SLEEPERS, -1)
    return _load(flag + POSTED) >= count


@_inner
def _copy(target: int, source: int, num_bytes: int) -> None:
    to, what = _bytes_at(target), _bytes_at(source)
    for i in range(num_bytes):
        to[i] = what[i]


@_kernel("void(int64, int64, int64, int64, int64)")
def publish(target: int, source: int, num_bytes: int, flag: int, count: int) -> None:
    """Copies, sets `posted` of the flag, and wakes who sleeps on it."""
    _copy(target, source, num_bytes)
    _exchange(flag + POSTED, count)
    if _load(flag + SLEEPERS) > 0:
        _syscall(_SYS_FUTEX, flag + POSTED, _WAKE, _ALL, 0, 0, 0)


@_kernel("void(int64, int64, int64)")
def copy(target: int, source: int, num_bytes: int) -> None:
    _copy(target, source, num_bytes)


@_kernel("int64(int64, int64, int64, int64, int64, int64)")
def first_missing(flags: int, start: int, stop: int, count: int, spin: int, nap: int) -> int:
    """Waits until flags `start:stop` have posted `count`; the first that has not, or -1.

    Spins for `spin` cycles, then sleeps once, for the timespec at `nap` at most (0: not at all).
    """
    begin = _cycles()
    for index in range(start, stop):
        flag = flags + index * LINE
        while _load(flag + POSTED) < count:
            if _cycles() - begin < spin:
                _pause()
            elif nap == 0 or not _sleep(flag, count, nap):
                return index
    return -1


@_inner
def _to_bf16(value: float) -> Any:
    bits = _as_bits(value)
    rounded = (bits + _u32(0x7FFF) + ((bits >> _u32(16)) & _u32(1))) >> _u32(16)
    return types.uint16(_u32(0x7FC0) if value != value else rounded)


# fp16 by the bits, as not every processor converts it. Both after Fabian Giesen's public-domain
# conversions: a half's bits, moved up, are a float whose exponent is too small by 112.
@_inner
def _from_fp16(half: int) -> Any:
    moved = (_u32(half) & _u32(0x7FFF)) << _u32(13)
    bits = _as_bits(_as_float(moved) * _as_float(_u32(0x77800000)))  # 2**112
    bits |= _u32(0x7F800000) if moved >= _u32(0x0F800000) else _u32(0)  # infinity, NaN
    return _as_float(bits | ((_u32(half) & _u32(0x8000)) << _u32(16)))


@_inner
def _to_fp16(value: float) -> Any:
    bits = _as_bits(value)
    size = bits & _u32(0x7FFFFFFF)
    normal = (size + _u32(0xC8000FFF) + ((size >> _u32(13)) & _u32(1))) >> _u32(13)
    # Adding 0.5 leaves a subnormal half, rounded, in the lowest bits.
    subnormal = _as_bits(_as_float(size) + _as_float(_u32(0x3F000000))) - _u32(0x3F000000)
    large = _u32(0x7E00) if size > _u32(0x7F800000) else _u32(0x7C00)
    half = subnormal if size < _u32(0x38800000) else normal
    half = large if size >= _u32(0x47800000) else half
    return types.uint16(half | ((bits >> _u32(16)) & _u32(0x8000)))


@_inner
def _add_part(sums: Any, source: int, length: int, kind: int) -> None:
    floats, halves = _floats_at(source), _halves_at(source)
    if kind == FP32:
        for i in range(length):
            sums[i] += floats[i]
    elif kind == BF16:
        for i in range(length):
            sums[i] += _as_float(types.uint32(halves[i]) << types.uint32(16))
    else:
        for i in range(length):
            sums[i] += _from_fp16(halves[i])


@_inner
def _round(target: int, sums: Any, length: int, kind: int) -> None:
    floats, halves = _floats_at(target), _halves_at(target)
    if kind == FP32:
        for i in range(length):
            floats[i] = sums[i]
    elif kind == BF16:
        for i in range(length):
            halves[i] = _to_bf16(sums[i])
    else:
        for i in range(length):
            halves[i] = _to_fp16(sums[i])


@_kernel("void(int64, int64, int64, int64, int64, int64)")
def add(target: int, first: int, stride: int, num_parts: int, count: int, kind: int) -> None:
    """Sums `num_parts` runs of `count` elements, the runs `stride` bytes apart.

    In fp32 and in the order of the parts, so that every rank gets the same bits.
    """
    width = 4 if kind == FP32 else 2
    sums = np.empty(_ADD_BLOCK, np.float32)
    for start in range(0, count, _ADD_BLOCK):
        length = min(_ADD_BLOCK, count - start)
        sums[:] = np.float32(-0.0)  # plus x it is x, even where that is -0.0
        for part in range(num_parts):
            _add_part(sums, first + part * stride + start * width, length, kind)
        _round(target + start * width, sums, length, kind)
