"""Named parameters of kernels: one NamedTuple, read by the kernel and filled in by Python.

    class NormParams(NamedTuple):            program.add(_norm, num_rows, NormParams(x=x, ...))
        x: Address   # (rows, hidden) fp32
        hidden: int                          read_params = params_reader(NormParams)
                                             p = read_params(address)    in a kernel: p.hidden

In memory they are int64s in the order of the fields. Reading them compiles to the loads of those
fields that are used.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from numba import types

from moss_tp.native.llvm import I64, INT_BYTES, i64, intrinsic

_types: Any = types  # partly typed

# A tensor, when Python fills parameters in; the address of its memory, in a kernel.
Address = Any


def num_bytes(*layouts: type[NamedTuple]) -> int:
    """What parameters of these types take, side by side."""
    return sum(len(layout._fields) for layout in layouts) * INT_BYTES


def params_reader(layout: type[NamedTuple]) -> Callable[[int], Any]:
    """`read(address)`, for kernels: the `layout` that lies there, with an int64 in each field."""
    count = len(layout._fields)
    fields = _types.NamedUniTuple(types.int64, count, layout)

    @intrinsic
    def read(context: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            base = builder.inttoptr(arguments[0], I64.as_pointer())
            values = [builder.load(builder.gep(base, [i64(index)])) for index in range(count)]
            return context.make_tuple(builder, fields, values)

        return fields(types.int64), codegen

    return read  # type: ignore[no-any-return]
