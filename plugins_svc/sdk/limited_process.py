"""What all worker processes have in common: how a parent starts one, and how it limits itself.

It does not know what a worker does, nor how it is talked to.
"""

import resource
import sys
import time
from pathlib import Path

ENVIRONMENT = {"PYTHONPATH": str(Path(__file__).parents[2])}  # nothing else: no secrets to leak


def command(module: str) -> list[str]:
    """Runs `module` without the working directory and the user's packages on its path."""
    return [sys.executable, "-P", "-s", "-m", module]


def limit_memory_and_files(memory_bytes: int) -> None:
    """Limit this process to that much address space, no written file and no core dump."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def limit_cpu_from_now(seconds: int) -> None:
    """Allow `seconds` of CPU from now on, in case the parent is no longer there to kill us."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + seconds, hard))
