"""The same kernels as a processor without AVX-512 has them, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from moss_tp.kernels.cpu.vectors import has_instructions

HERE = Path(__file__).parent


@pytest.mark.skipif(not has_instructions("avx512f"), reason="nothing to leave out")
def test_kernels_without_avx512() -> None:
    told = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma,+f16c,+bmi,+bmi2"}
    tests = [str(HERE / f"test_{name}.py") for name in ("attention", "linear", "block")]
    pytest_run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(
        pytest_run, env=os.environ | told, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:]
