"""How Numba code is compiled: once for a machine and a version of its sources, then read from disk.

A kernel is a C function `(params, task)`: it does the `task`-th part of the work that the int64s
at the address `params` describe, see `params`. Besides kernels there are functions that Python
calls, which release the GIL.
"""

import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import numba

from moss_tp.native.linked import Linked
from moss_tp.native.names import named_by_content
from moss_tp.native.sources import cache_dir

# Sums may be reassociated, so that they vectorise; infinities and NaN keep their meaning.
_FASTMATH: set[str] | bool = {"reassoc", "contract", "nsz", "arcp"}

# Of functions that kernels call.
_PART: dict[str, Any] = {
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
    "pipeline_class": Linked,
}

_cache_dir_lock = threading.Lock()  # numba.config is shared by all threads
_alive: list[Any] = []  # an address is valid as long as its function lives


def kernel(function: Callable[[int, int], None]) -> int:
    """The address of `function(params, task)`, compiled on import, so that no request waits."""
    return _compile(function, "void(int64, int64)")


def kernel_on_demand(function: Callable[[int, int], None]) -> Callable[[], int]:
    """`kernel` for what not every machine uses: compiled at the first call of the result."""
    return cache(lambda: kernel(function))


def exact_kernel(function: Callable[[int, int], None]) -> int:
    """`kernel`, with every sum in the order it is written and nothing contracted, so that the same
    numbers give the same bits wherever a function is inlined."""
    return _compile(function, "void(int64, int64)", fastmath=False)


def exact_kernel_on_demand(function: Callable[[int, int], None]) -> Callable[[], int]:
    return cache(lambda: exact_kernel(function))


def thread_main(function: Callable[[int], None]) -> int:
    """The address of `function(data)`, as a thread pool calls it."""
    return _compile(function, "void(int64)")


def inner(function: Callable[..., Any]) -> Any:
    """A function that kernels call; compiled into each of them."""
    return numba.njit(fastmath=_FASTMATH, error_model="numpy", **_PART)(named_by_content(function))


def inlined(function: Callable[..., Any]) -> Any:
    """`inner`, always inlined: for one with a single caller and many arguments."""
    compile_ = numba.njit(fastmath=_FASTMATH, error_model="numpy", forceinline=True, **_PART)
    return compile_(named_by_content(function))


def exact_inlined(function: Callable[..., Any]) -> Any:
    """`inlined`, for exact kernels."""
    return numba.njit(error_model="numpy", forceinline=True, **_PART)(named_by_content(function))


def python_callable(*signatures: str) -> Callable[[Callable[..., Any]], Any]:
    """A function that Python calls, without the GIL. Arithmetic is exact, see `exact_inner`."""
    compile_ = _cached(numba.njit(list(signatures), nogil=True, cache=True))
    return lambda function: compile_(named_by_content(function))


def exact_inner(function: Callable[..., Any]) -> Any:
    """`inner` for functions that Python calls: every sum is taken in the order it is written."""
    return numba.njit(**_PART)(named_by_content(function))


def _compile(
    function: Callable[..., None], signature: str, fastmath: set[str] | bool = _FASTMATH
) -> int:
    compile_ = numba.cfunc(signature, cache=True, fastmath=fastmath, error_model="numpy")
    compiled = _cached(compile_)(named_by_content(function))
    _alive.append(compiled)
    return int(compiled.address)


def _cached(compile_: Callable[[Callable[..., Any]], Any]) -> Callable[[Callable[..., Any]], Any]:
    """`compile_`, with its result kept in our own directory instead of Numba's."""

    def compile_in_dir(function: Callable[..., Any]) -> Any:
        config: Any = numba.config
        directory = cache_dir(function.__code__.co_filename)
        with _cache_dir_lock:
            before, config.CACHE_DIR = config.CACHE_DIR, directory
            try:
                return compile_(function)
            finally:
                config.CACHE_DIR = before

    return compile_in_dir
