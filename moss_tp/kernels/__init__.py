"""Chooses a rank's kernels by device, dtype and head size. `base` has their interface.

    reference/    torch operations, on any device; the oracle of all others
    cpu/          Numba
    cuda/         Triton

On CPU a row's result has the same bits whatever the rows beside it, the step's number of rows and
the number of threads: every sum is taken in one order, and rounded once. It holds for a dtype, a
KV cache dtype and a tp_size on one machine. The reference does not promise that.

A back end is imported only when it is chosen, since that may compile kernels. A further one is a
package here and an entry in BACK_ENDS.
"""

from collections.abc import Callable

import torch

from moss_tp.errors import ConfigError
from moss_tp.kernels.base import Kernels


def choose_kernels(back_end: str, dtype: torch.dtype, head_dim: int) -> Kernels:
    """The fastest kernels for weights of `dtype`; compiles them if this machine never has.

    A back end is named as its device type, "cpu" or "cuda". Raises ConfigError for one that does
    not exist.
    """
    choose = BACK_ENDS.get(back_end)
    if choose is None:
        raise ConfigError(f"there are no kernels for {back_end}")
    return choose(dtype, head_dim)


def _cpu(dtype: torch.dtype, head_dim: int) -> Kernels:
    from moss_tp.kernels.cpu.choose import cpu_kernels

    return cpu_kernels(dtype, head_dim)


def _cuda(dtype: torch.dtype, head_dim: int) -> Kernels:
    from moss_tp.kernels.cuda.runtime.triton_import import import_triton

    import_triton()  # says what is missing, where it is
    from moss_tp.kernels.cuda.choose import cuda_kernels

    return cuda_kernels(dtype, head_dim)


BACK_ENDS: dict[str, Callable[[torch.dtype, int], Kernels]] = {"cpu": _cpu, "cuda": _cuda}
