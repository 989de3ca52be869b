"""Rank 0 of a driver uses the GPU that Ray reserved for it, and no other rank gets that GPU."""

import os
import subprocess
import sys
from pathlib import Path

# Ray accepts made-up GPUs. A driver sees all of them, numbered from 0, an actor only its own.
SCRIPT = """
import tempfile
import ray
from cluster.ranks.placement import Placement, rank_options

def own() -> list[int]:
    return [int(gpu) for gpu in ray.get_gpu_ids()]

ray.init(
    address="local", num_cpus=4, num_gpus=3, include_dashboard=False, logging_level="ERROR",
    _temp_dir=tempfile.mkdtemp(prefix="moss-", dir="/tmp"), object_store_memory=80 << 20,
)
placement = Placement.current_or_new(2, "cuda")
options = {**rank_options("cuda"), "scheduling_strategy": placement.strategy(1)}
(other,) = ray.get(ray.remote(own).options(**options).remote())
gpus = [4, 6, 7]
assert other in gpus
others = {f"cuda:{index}" for index, gpu in enumerate(gpus) if gpu != other}
assert placement.own_device("cuda") in others
assert placement.own_device("cpu") == "cpu"
placement.release()
ray.shutdown()
print("held")
"""


def test_each_rank_has_a_gpu_of_its_own() -> None:
    shown = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        timeout=200,
        cwd=Path(__file__).parents[3],
        env={
            **os.environ,
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
            "CUDA_VISIBLE_DEVICES": "4,6,7",
        },
    )
    assert shown.stdout == "held\n", shown.stderr
