"""How this package's kernels are compiled: `triton.jit` for every room, and what all of them know.

Only kernels and their wrappers import it: it needs Triton.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from moss_tp.kernels.cuda.runtime.triton_import import import_triton

triton = import_triton()
IS_INTERPRETER: bool = triton.knobs.runtime.interpret


def jit(function: Callable[..., Any]) -> Any:
    """A device function, or a kernel all of whose arguments Triton may specialise on."""
    return triton.jit(function)


def kernel(
    *unspecialized: str, unaligned: Sequence[str] = ()
) -> Callable[[Callable[..., Any]], Any]:
    """A kernel. Triton compiles it anew where an integer is 1 or divisible by 16, except for those
    in `unspecialized`: what differs from step to step must not choose another program. Nor where a
    pointer is aligned to 16 bytes, in `unaligned`."""

    def compiled(function: Callable[..., Any]) -> Any:
        return triton.jit(
            function,
            do_not_specialize=list(unspecialized),
            do_not_specialize_on_alignment=list(unaligned),
        )

    return compiled


def has_wide_dot(dtype: torch.dtype) -> bool:
    """Whether `tl.dot` needs its operands in fp32: the interpreter multiplies the bits of bf16."""
    return IS_INTERPRETER and dtype == torch.bfloat16


def next_power_of_2(size: int) -> int:
    return 1 << max(0, size - 1).bit_length()


def options(num_warps: int, num_stages: int) -> dict[str, Any]:
    """Of every launch: no product and sum is fused that does not say so."""
    return {"num_warps": num_warps, "num_stages": num_stages, "enable_fp_fusion": False}


TYPE_NAMES: dict[torch.dtype, str] = {
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float32: "fp32",
    torch.float64: "fp64",
    torch.int8: "i8",
    torch.int16: "i16",
    torch.int32: "i32",
    torch.int64: "i64",
}


def pointer(dtype: torch.dtype) -> str:
    """A pointer's type in a KernelSpec's signature."""
    return f"*{TYPE_NAMES[dtype]}"
