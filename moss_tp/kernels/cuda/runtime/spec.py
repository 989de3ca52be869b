"""A kernel as it is compiled ahead of time: for a cubin, its registers and its shared memory."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class KernelSpec:
    """`function` is what `triton.jit` returned. `signature` gives each argument's type in order
    ("*fp16", "i32", "fp32", "constexpr"), `constants` the values of those that are constexpr.
    Arguments in `aligned` are divisible by 16: pointers, and sizes of which the kernel knows it.
    """

    name: str
    function: Any
    signature: Mapping[str, str]
    constants: Mapping[str, object]
    aligned: tuple[str, ...] = ()
    num_warps: int = 4
    num_stages: int = 3
    options: Mapping[str, object] = field(default_factory=lambda: {"enable_fp_fusion": False})
