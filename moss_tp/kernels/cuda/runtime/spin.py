"""A kernel that does not end until it is told to: to see that somebody notices."""

from collections.abc import Iterator

import torch
import triton.language as tl
from torch import Tensor

from moss_tp.kernels.cuda.runtime.jit import kernel, options
from moss_tp.kernels.cuda.runtime.spec import KernelSpec

# Of looks at memory of the host, about a microsecond each: it ends by itself, so that a program
# that is killed leaves no stuck GPU behind.
LOOKS = 30_000_000


@kernel("looks")
def _spin_kernel(flag: tl.tensor, looks: tl.tensor) -> None:
    left = looks
    while (left > 0) & (tl.load(flag, volatile=True) == 0):
        left -= 1


def spin(flag: Tensor, looks: int = LOOKS) -> None:
    """Occupies the current stream until `flag (1,)`, int32 in pinned memory, is not 0.

    Raises ValueError for another flag.
    """
    if flag.dtype != torch.int32 or flag.shape != (1,):
        raise ValueError(f"flag is {flag.dtype} {tuple(flag.shape)}, not int32 (1,)")
    _spin_kernel[(1,)](flag, looks, **options(1, 1))


def specs() -> Iterator[KernelSpec]:
    """The kernel as it is compiled."""
    yield KernelSpec("spin", _spin_kernel, {"flag": "*i32", "looks": "i32"}, {}, ("flag",), 1, 1)
