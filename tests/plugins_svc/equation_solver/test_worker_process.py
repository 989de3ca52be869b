"""The solver's worker processes: their limits, their death and their replacement."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from plugins_svc.equation_solver.plugin import TIMEOUT_S
from plugins_svc.equation_solver.worker import MEMORY_BYTES
from plugins_svc.equation_solver.worker_process import WorkerProcess

# Within every limit on the text, but far too large to expand.
BLOW_UP = "(a+b+c+d+e+f+g+h)^12=(a-b)^11;(a+b+c-d)^12=(e+f+g+h)^11;a*b*c*d=5"


@pytest.fixture
def process() -> Iterator[WorkerProcess]:
    process = WorkerProcess()
    yield process
    process.close()


def test_defence_the_process_is_limited(process: WorkerProcess) -> None:
    assert process.solve("x=1", 60) == ["x = 1"]
    limits = Path(f"/proc/{process.pid}/limits").read_text("ascii")
    rows = {row[:25].strip(): row[25:].split()[0] for row in limits.splitlines()}
    assert rows["Max address space"] == str(MEMORY_BYTES)
    assert rows["Max file size"] == rows["Max core file size"] == "0"
    assert int(rows["Max cpu time"]) < 60


def test_defence_the_process_inherits_no_environment(process: WorkerProcess) -> None:
    environment = Path(f"/proc/{process.pid}/environ").read_bytes()
    assert [item.split(b"=")[0] for item in environment.split(b"\0") if item] == [b"PYTHONPATH"]


def test_defence_a_call_that_takes_too_long_costs_its_process(process: WorkerProcess) -> None:
    assert process.solve("x=1", 60) == ["x = 1"]
    first = process.pid
    started = time.monotonic()
    assert process.solve(BLOW_UP, TIMEOUT_S) == []
    assert time.monotonic() - started >= TIMEOUT_S  # the parent's limit ended it
    assert process.pid != first
    assert not Path(f"/proc/{first}").exists()
    assert process.solve("x=2", 60) == ["x = 2"]


def test_defence_a_process_that_only_hangs_is_killed_too(process: WorkerProcess) -> None:
    assert process.solve("x=1", 60) == ["x = 1"]
    first = process.pid
    os.kill(first, signal.SIGSTOP)  # uses no CPU, so no limit of its own can end it
    assert process.solve("x=1", 0.1) == []
    assert not Path(f"/proc/{first}").exists()
    assert process.solve("x=2", 60) == ["x = 2"]


def test_defence_memory_is_bounded() -> None:
    source = (
        "from plugins_svc.equation_solver.worker import limit_process\n"
        "limit_process(); bytearray(2**30)"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, check=False)
    assert b"MemoryError" in done.stderr


def test_defence_cpu_is_bounded_when_no_parent_is_there_to_kill() -> None:
    source = (
        "import plugins_svc.equation_solver.worker as worker\n"
        "worker.CPU_SECONDS = 0; worker.limit_cpu()\n"
        "while True: pass"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, check=False)
    assert done.returncode == -signal.SIGXCPU


def test_a_killed_process_is_replaced(process: WorkerProcess) -> None:
    assert process.solve("x=1", 60) == ["x = 1"]
    os.kill(process.pid, signal.SIGKILL)
    assert process.solve("x=2", 60) == []
    assert process.solve("x=3", 60) == ["x = 3"]


def test_the_worker_ends_with_its_input() -> None:
    command = [sys.executable, "-m", "plugins_svc.equation_solver.worker"]
    done = subprocess.run(command, input=b'"x=1"\n"?"\n', capture_output=True, check=True)
    assert done.stdout == b'[]\n["x = 1"]\n[]\n'
