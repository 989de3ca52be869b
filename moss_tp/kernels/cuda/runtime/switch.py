"""Whether a wrapper runs its Triton kernel or its torch reference.

On a GPU it is always the kernel. On the CPU it is the reference, unless `interpreted` is active and
Triton was imported with TRITON_INTERPRET=1: then Triton's interpreter runs the kernel.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

_is_interpreting: ContextVar[bool] = ContextVar("is_interpreting", default=False)


def uses_triton(x: Tensor) -> bool:
    return x.is_cuda or _is_interpreting.get()


@contextmanager
def interpreted() -> Iterator[None]:
    """Runs kernels on CPU tensors by Triton's interpreter. Slow: for tests of the kernels."""
    token = _is_interpreting.set(True)
    try:
        yield
    finally:
        _is_interpreting.reset(token)
