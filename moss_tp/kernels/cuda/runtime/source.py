"""What Triton compiles when a kernel is launched: the key of its cache, without a launch.

A type is not all of it. Of each argument Triton looks at whether it is 1 or divisible by 16, and
how that is written down differs between its versions; so its own functions do it here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from triton import compile as compile_source
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime.jit import JITFunction, create_function_from_signature

from moss_tp.kernels.cuda.runtime.jit import TYPE_NAMES
from moss_tp.kernels.cuda.runtime.spec import KernelSpec

DTYPES = {name: dtype for dtype, name in TYPE_NAMES.items()}
ALIGNED, UNALIGNED = 16, 8  # an address or a size, of which Triton sees no more


@dataclass(frozen=True)
class Source:
    """Equal for launches that run the same program. See `triton.compiler.ASTSource`."""

    name: str
    signature: Mapping[str, str]
    constants: Mapping[tuple[int, ...], object]
    attrs: Mapping[tuple[int, ...], object]
    options: Any  # num_warps and the like, a dataclass of the back end
    function: Any = field(compare=False, repr=False)  # a JITFunction

    def compile(self, cc: int) -> Any:
        """As a launch does. Only in a process where Triton does not interpret."""
        source = ASTSource(
            self.function, dict(self.signature), dict(self.constants), dict(self.attrs)
        )
        return compile_source(source, target=_target(cc), options=self.options.__dict__)


def source_of(
    function: Any, values: Mapping[str, Any], options: Mapping[str, Any], cc: int
) -> Source:
    """Of a launch with `values` by argument's name, as in `JITFunction.run`."""
    kernel = _compiled(function)
    keywords = {
        **options,
        "debug": knobs.runtime.debug,
        "instrumentation_mode": knobs.compilation.instrumentation_mode,
    }
    backend = make_backend(_target(cc))
    bind = create_function_from_signature(kernel.signature, kernel.params, backend)
    bound = bind(**values, **keywords)
    options, signature, constants, attrs = kernel._pack_args(backend, keywords, *bound)
    name = kernel.fn.__qualname__
    return Source(name, signature, constants, attrs, options, kernel)


def source_of_spec(spec: KernelSpec, cc: int) -> Source:
    """Of a launch with arguments as the spec has them."""
    options = {"num_warps": spec.num_warps, "num_stages": spec.num_stages, **spec.options}
    return source_of(spec.function, dict(_values(spec)), options, cc)


@dataclass(frozen=True)
class _Pointer:
    """What Triton looks at of a tensor."""

    dtype: torch.dtype
    address: int

    def data_ptr(self) -> int:
        return self.address


def _values(spec: KernelSpec) -> Iterator[tuple[str, Any]]:
    for name, kind in spec.signature.items():
        size = ALIGNED if name in spec.aligned else UNALIGNED
        if kind == "constexpr":
            yield name, spec.constants[name]
        elif kind.startswith("*"):
            yield name, _Pointer(DTYPES[kind[1:]], size)
        elif kind.startswith("fp"):
            yield name, 0.5
        else:
            yield name, size if kind == "i32" else size << 32


@cache
def _compiled(function: Any) -> Any:
    """Where Triton interprets, the kernel that it would compile."""
    if isinstance(function, JITFunction):
        return function
    return JITFunction(function.fn, **function.kwargs)


def _target(cc: int) -> Any:
    return GPUTarget("cuda", cc, 32)
