"""How Numba code is compiled: once for a machine and a version of its files, then read from disk.

A kernel is a C function `(params, task)`: it does the `task`th part of the work that the int64s
at the address `params` describe. Beside kernels there are functions that Python calls, which let
go of the GIL. It knows no threads.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba

# All that is compiled into one another.
_SOURCES = ("native", "kernels/cpu", "parallel")
# Sums may be taken in any order, by vectors; infinities and NaN keep their meaning.
_FASTMATH = {"reassoc", "contract", "nsz", "arcp"}


def kernel(function: Callable[[int, int], None]) -> int:
    """The address of `function(params, task)`, compiled; at once, so that no request waits."""
    return _compile(function, "void(int64, int64)")


def kernel_on_demand(function: Callable[[int, int], None]) -> Callable[[], int]:
    """`kernel` for what not every machine computes with: compiled when it is first asked for."""
    return cache(lambda: kernel(function))


def entry(function: Callable[[int], None]) -> int:
    """The address of `function(data)`, as a thread pool calls it."""
    return _compile(function, "void(int64)")


def inner(function: Callable[..., Any]) -> Any:
    """For what kernels call: compiled into each of them."""
    return numba.njit(fastmath=_FASTMATH, error_model="numpy")(function)


def inlined(function: Callable[..., Any]) -> Any:
    """`inner` for what has one caller and many arguments, which cost nothing then."""
    return numba.njit(fastmath=_FASTMATH, error_model="numpy", forceinline=True)(function)


def called(*signatures: str) -> Callable[[Callable[..., Any]], Any]:
    """For what Python calls, without the GIL. Arithmetic is exact: every sum in its own order."""
    return _cached(numba.njit(list(signatures), nogil=True, cache=True))


def exact(function: Callable[..., Any]) -> Any:
    """`inner` for what is `called`: arithmetic as it is written."""
    return numba.njit(function)


def _compile(function: Callable[..., None], signature: str) -> int:
    compile_it = numba.cfunc(signature, cache=True, fastmath=_FASTMATH, error_model="numpy")
    compiled = _cached(compile_it)(function)
    _KEPT.append(compiled)
    return int(compiled.address)


def _cached(compile_it: Callable[[Callable[..., Any]], Any]) -> Callable[[Callable[..., Any]], Any]:
    """`compile_it`, with its results kept in our own directory."""

    def compile_here(function: Callable[..., Any]) -> Any:
        config: Any = numba.config
        before, config.CACHE_DIR = config.CACHE_DIR, _cache_dir()
        try:
            return compile_it(function)
        finally:
            config.CACHE_DIR = before

    return compile_here


_KEPT: list[Any] = []  # an address is good for as long as its function lives


@cache
def _cache_dir() -> str:
    """A directory of these very sources: Numba itself would miss a change in an imported file.

    Where the user's cache cannot be written it is a fresh one, and nothing is kept."""
    digest = hashlib.sha256()
    package = Path(__file__).parents[1]
    for file in sorted(file for folder in _SOURCES for file in (package / folder).glob("*.py")):
        digest.update(file.read_bytes())
    base = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    path = Path(base).expanduser() / "moss" / f"native-{digest.hexdigest()[:16]}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return str(path)
    except OSError:
        return tempfile.mkdtemp(prefix="moss-native-")
