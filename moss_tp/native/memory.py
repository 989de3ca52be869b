"""Access to memory by address: typed pointers, prefetch, and calls through a function's address.

Addresses are int64 throughout; nothing checks them.
"""

from typing import Any

from llvmlite import ir
from llvmlite.binding import get_host_cpu_name
from numba import types

from moss_tp.native.llvm import I8, I32, I64, call, intrinsic

_types: Any = types  # partly typed
# Non-temporal prefetches keep the caches of AMD's processors for other lines. On Intel's they cost
# most of the bandwidth: with them an Emerald Rapids reads weights at 12 GB/s, without at 41.
_HAS_GOOD_HINT = str(get_host_cpu_name()).startswith("znver")


def _pointer_cast(element: Any) -> Any:
    @intrinsic
    def cast(context: Any, address: Any) -> Any:
        pointer = _types.CPointer(element)

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(pointer))

        return pointer(types.int64), codegen

    return cast


# `int64_at(address)[i]` reads and writes the i-th int64 from the address on. bf16 and fp16 are
# accessed as their bits, in uint16.
int8_at = _pointer_cast(types.int8)
uint8_at = _pointer_cast(types.uint8)
int16_at = _pointer_cast(types.int16)
uint16_at = _pointer_cast(types.uint16)
uint32_at = _pointer_cast(types.uint32)
int32_at = _pointer_cast(types.int32)
int64_at = _pointer_cast(types.int64)
fp32_at = _pointer_cast(types.float32)


@intrinsic
def prefetch(context: Any, address: Any) -> Any:
    """Prefetches the cache line at `address` into every cache; any address is allowed."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit_prefetch(builder, arguments[0])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


def emit_prefetch(builder: Any, address: Any, is_reused: bool = True) -> None:
    """`is_reused=False`: the line will be read only once."""
    pointer = builder.inttoptr(address, I8.as_pointer())
    locality = 3 if is_reused or not _HAS_GOOD_HINT else 0
    flags = [ir.Constant(I32, flag) for flag in (0, locality, 1)]  # read, locality, data cache
    call(builder, "llvm.prefetch.p0i8", ir.VoidType(), [pointer, *flags])


@intrinsic
def call_kernel(context: Any, kernel: Any, params: Any, task: Any) -> Any:
    """Calls the C function `void kernel(int64 params, int64 task)` at the address `kernel`."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kernel, params, task = arguments
        pointer = ir.FunctionType(ir.VoidType(), [I64, I64]).as_pointer()
        builder.call(builder.inttoptr(kernel, pointer), [params, task])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen
