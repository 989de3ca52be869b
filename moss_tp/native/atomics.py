"""What threads and processes need to wait for each other: atomics, a pause, a clock.

Atomics act on the int64 at an address. Memory order is LLVM's.
"""

import platform
from typing import Any

from llvmlite import ir
from numba import types

from moss_tp.native.llvm import I32, I64, call, intrinsic


def _read_modify_write(operation: str) -> Any:
    @intrinsic
    def modify(context: Any, address: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer = builder.inttoptr(arguments[0], I64.as_pointer())
            return builder.atomic_rmw(operation, pointer, arguments[1], "seq_cst")

        return types.int64(types.int64, types.int64), codegen

    return modify


# Both return the old value and are full barriers: no load or store moves across them.
fetch_add = _read_modify_write("add")
exchange = _read_modify_write("xchg")


@intrinsic
def load_acquire(context: Any, address: Any) -> Any:
    """Sees everything written before the value that it loads; later loads stay behind it."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], I64.as_pointer())
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(types.int64), codegen


@intrinsic
def relax(context: Any) -> Any:
    """The processor's pause instruction, for the body of a spin loop."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if platform.machine() in ("x86_64", "AMD64"):
            call(builder, "llvm.x86.sse2.pause", ir.VoidType(), [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def yield_core(context: Any) -> Any:
    """`sched_yield`: the thread that is waited for may need this core."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        call(builder, "sched_yield", I32, [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def read_cycles(context: Any) -> Any:
    """The processor's time-stamp counter."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return call(builder, "llvm.readcyclecounter", I64, [])

    return types.int64(), codegen
