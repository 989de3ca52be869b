"""Functions that kernels call are parts of them, and nothing by themselves."""

import ctypes
from typing import Any

import numpy as np
import pytest
from numba.core.codegen import CPUCodeLibrary

from moss_tp.native.compiled import exact_inlined, inlined, inner, kernel
from moss_tp.native.memory import int64_at
from moss_tp.native.sources import register_sources

register_sources(__file__)


@inner
def _by_seven(x: int) -> int:
    return x * 7


@inlined
def _middle(x: int) -> Any:
    return _by_seven(x) + _by_seven(x + 1)


@exact_inlined
def _outer(address: int) -> None:
    numbers = int64_at(address)
    numbers[1] = _middle(numbers[0])


def test_a_kernel_is_optimised_once_whatever_it_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    optimise: Any = CPUCodeLibrary._optimize_final_module

    def optimise_and_note(library: Any) -> None:
        names.append(library.name)
        optimise(library)

    monkeypatch.setattr(CPUCodeLibrary, "_optimize_final_module", optimise_and_note)
    monkeypatch.setattr("numba.core.caching.IndexDataCacheFile.load", lambda *_: None)

    def run(params: int, task: int) -> None:
        _outer(params)

    numbers = np.array([5, 0])
    address = kernel(run)
    ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(address)(numbers.ctypes.data, 0)
    assert numbers[1] == 7 * 5 + 7 * 6
    assert [name for name in names if "run" in name] and not [n for n in names if "_middle" in n]
    assert not [name for name in names if "_by_seven" in name or "_outer" in name]


def test_python_cannot_call_a_part() -> None:
    """It must not seem to have a result."""
    with pytest.raises(KeyError, match="empty set"):
        _by_seven(5)
