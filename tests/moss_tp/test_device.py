"""Facts by device, the threads of a rank, and no torch where none is needed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from moss_tp.device import DEVICES, DTYPES, TRAITS, free_memory, rank_device, threads_per_rank

ROOT = Path(__file__).parents[2]
CORES = len(os.sched_getaffinity(0))


def printed(code: str, **environment: str) -> str:
    """What `code` prints in a process that is started with `environment`."""
    unset = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    run = subprocess.run(
        [sys.executable, "-c", f"from moss_tp import device; import os, sys\n{code}"],
        env={**unset, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.strip()


@pytest.mark.parametrize("device", DEVICES)
def test_the_traits_of_a_device_are_possible(device: str) -> None:
    traits = TRAITS[device]
    assert traits.default_dtype in DTYPES
    assert 0 < traits.row_cost < 1
    assert 0 < traits.kv_share < 1
    assert traits.mixed_prefill_tokens > 0
    assert traits.step_timeout_s > traits.min_step_limit_s > 0


def test_free_memory_is_read_from_the_kernel() -> None:
    assert 2**20 < free_memory("cpu") < 2**50


def test_each_rank_has_its_own_gpu_and_all_share_the_cpu() -> None:
    assert [rank_device("cuda", rank) for rank in range(2)] == ["cuda:0", "cuda:1"]
    assert [rank_device("cpu", rank) for rank in range(2)] == ["cpu", "cpu"]


def test_given_threads_are_used() -> None:
    assert threads_per_rank(2, num_threads=3 * CORES) == 3 * CORES


@pytest.mark.parametrize("value", ["", "all", "0"])
def test_ranks_share_the_cores_equally(value: str) -> None:
    code = "print([device.threads_per_rank(n) for n in (1, 2, 1000)])"
    shares = [CORES, max(1, CORES // 2), 1]
    assert printed(code, OMP_NUM_THREADS=value) == str(shares)


@pytest.mark.parametrize("value", ["7", "7,2"])
def test_omp_num_threads_counts_only_where_the_process_was_started_with_it(value: str) -> None:
    """Ray sets it to 1 in every worker that was started without it."""
    code = "os.environ['OMP_NUM_THREADS'] = '1'; print(device.threads_per_rank(2))"
    assert printed(code, OMP_NUM_THREADS=value) == "7"
    assert printed(code) == str(max(1, CORES // 2))


def test_the_module_loads_no_torch() -> None:
    assert printed("print('torch' in sys.modules)") == "False"
