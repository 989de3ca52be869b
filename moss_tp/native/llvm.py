"""LLVM types, constants and calls that intrinsics are built from.

An intrinsic is a function that Numba replaces by LLVM instructions.
"""

from collections.abc import Callable
from typing import Any

import numba.extending
from llvmlite import ir
from numba.core import cgutils

_cgutils: Any = cgutils  # untyped

FP32_BYTES, BF16_BYTES, INT_BYTES = 4, 2, 8

F32, I8, I16 = ir.FloatType(), ir.IntType(8), ir.IntType(16)
I32, I64 = ir.IntType(32), ir.IntType(64)


def intrinsic(function: Callable[..., Any]) -> Any:
    """Numba's decorator; kernels call the result without the first argument, `context`."""
    return numba.extending.intrinsic(function)


def i64(value: int) -> ir.Constant:
    return ir.Constant(I64, value)


def call(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    """Calls an LLVM intrinsic, or a C function that is loaded in this process."""
    function_type = ir.FunctionType(result, [argument.type for argument in arguments])
    function = _cgutils.get_or_insert_function(builder.module, function_type, name)
    return builder.call(function, arguments)


def stack_variable(builder: Any, value: Any) -> Any:
    """A pointer to a stack slot, initialised with `value`."""
    pointer = _cgutils.alloca_once(builder, value.type)
    builder.store(value, pointer)
    return pointer


def loop_range(builder: Any, count: Any) -> Any:
    """A context manager: emits a loop over `0 .. count - 1`, see `numba.core.cgutils.for_range`."""
    return _cgutils.for_range(builder, count)
