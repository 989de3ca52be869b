"""The same kernels compiled another way, each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from moss_tp.kernels.cpu.vectors import has_instructions

HERE = Path(__file__).parent


def run_tests(told: dict[str, str], *names: str) -> None:
    tests = [str(HERE / f"test_{name}.py") for name in names]
    pytest_run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(
        pytest_run, env=os.environ | told, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.mark.skipif(not has_instructions("avx512f"), reason="nothing to leave out")
def test_as_a_processor_without_avx512_has_them() -> None:
    told = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma,+f16c,+bmi,+bmi2"}
    run_tests(told, "attention", "linear", "block")


def test_nothing_is_read_that_was_freed(tmp_path: Path) -> None:
    """Numba frees an array after its last use, which an address of it is none. Here it overwrites
    what it frees; that is compiled in, so with a cache of its own."""
    told = {"NUMBA_DEBUG_NRT": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    run_tests(told, "attention", "block")
