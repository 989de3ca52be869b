import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moss_tp.native.names import named_by_content

# Two kernels of one factory, whose inner functions are too large to be inlined everywhere.
MODULE = """
from moss_tp.native.compiled import inner, kernel_on_demand
from moss_tp.native.memory import int64_at
from moss_tp.native.sources import register_sources

register_sources(__file__)


def make(number):
    @inner
    def work(x):
        for _ in range(x % 5 + 1):
            CASES
        return x + number

    @inner
    def run(params, task):
        ints = int64_at(params)
        ints[0] = work(ints[0]) + work(ints[0] + 1) + work(ints[0] + 2)

    return run


_one, _two = make(1), make(1000)


@kernel_on_demand
def one(params: int, task: int) -> None:
    _one(params, task)


@kernel_on_demand
def two(params: int, task: int) -> None:
    _two(params, task)
"""
CASES = "\n            ".join(f"if x % {n} == {n - 1}: x = x * {n} + {n}" for n in range(3, 60))
RUN = """
import ctypes, sys
import numpy as np
import kernels_of_the_test as module

for name in sys.argv[1:]:
    kernel = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(getattr(module, name)())
    values = np.array([7])
    kernel(values.ctypes.data, 0)
    print(name, values[0])
"""


def test_kernels_that_were_compiled_in_different_processes_do_not_mix(tmp_path: Path) -> None:
    """Each is read from disk, where another process has left it."""
    (tmp_path / "kernels_of_the_test.py").write_text(MODULE.replace("CASES", CASES), "utf-8")
    path = os.pathsep.join((str(tmp_path), str(Path.cwd())))
    env = os.environ | {"PYTHONPATH": path, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}

    def run(*names: str) -> list[str]:
        command = [sys.executable, "-c", RUN, *names]
        done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
        return done.stdout.splitlines()

    alone = [*run("one"), *run("two")]
    assert run("one", "two") == alone
    assert alone[0].split()[1] != alone[1].split()[1]


def closures(number: int, function: Callable[..., Any]) -> Callable[..., Any]:
    def closure(x: int) -> Any:
        return function(x) + number

    return closure


def test_closures_are_named_by_what_they_close_over() -> None:
    names = [
        named_by_content(closures(number, function)).__qualname__
        for number in (1, 2)
        for function in (abs, closures(3, abs), closures(4, abs))
    ]
    assert len(set(names)) == len(names)
    again = named_by_content(closures(1, abs))
    assert named_by_content(again).__qualname__ == names[0], "once"


@pytest.mark.parametrize("value", [object(), np.arange(3), Path().exists])
def test_a_value_without_a_description_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="no description"):
        named_by_content(closures(value, abs))


def test_other_functions_keep_their_names() -> None:
    assert named_by_content(closures).__qualname__ == "closures"
