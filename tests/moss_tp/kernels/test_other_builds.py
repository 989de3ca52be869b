"""The kernels' tests again with kernels that are compiled differently, each in a process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from moss_tp.native.vectors import has_cpu_feature

HERE = Path(__file__).parent


def run_tests(variables: dict[str, str], *names: str) -> None:
    tests = [str(HERE / f"test_{name}.py") for name in names]
    pytest_run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(
        pytest_run, env=os.environ | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.mark.skipif(not has_cpu_feature("avx512f"), reason="this is such a processor")
def test_kernels_without_avx512() -> None:
    variables = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma,+f16c,+bmi,+bmi2"}
    run_tests(variables, "attention", "attention_bits", "linear", "block", "row_order")
    run_tests(variables, "quantized_linear", "quantized_block")


@pytest.mark.chaos  # it compiles everything again, for two minutes
def test_no_kernel_reads_freed_memory(tmp_path: Path) -> None:
    """Numba frees an array after its last use, and using its address does not count. Here Numba
    overwrites what it frees. That is compiled in, so the code is cached elsewhere."""
    variables = {"NUMBA_DEBUG_NRT": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    run_tests(variables, "attention", "block", "quantized_block", "amx", "quantized_linear")
