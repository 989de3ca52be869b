"""The solver's processes: their limits, their death and their replacement."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from plugins_svc.arithmetic import MAX_CHARS
from plugins_svc.equation_solver import TIMEOUT_S, EquationSolver
from plugins_svc.sdk.output import PluginOutput
from plugins_svc.solver_process import SolverProcess
from plugins_svc.solver_worker import MEMORY_BYTES

# Within every limit on the text, and yet far too much to expand.
BLOW_UP = "(a+b+c+d+e+f+g+h)^12=(a-b)^11;(a+b+c-d)^12=(e+f+g+h)^11;a*b*c*d=5"


@pytest.fixture
def process() -> Iterator[SolverProcess]:
    process = SolverProcess()
    yield process
    process.close()


@pytest.fixture
def solver() -> Iterator[EquationSolver]:
    solver = EquationSolver(num_processes=1, timeout_s=60)
    yield solver
    solver.close()


async def test_answers_come_as_lines(solver: EquationSolver) -> None:
    assert await solver.run("x^2=4") == PluginOutput(True, ("x_0 = -2", "x_1 = 2"))
    assert await solver.run("x=?") == PluginOutput.no_result()
    assert await solver.run("x=1\ny=2") == PluginOutput.no_result()


async def test_concurrent_calls_keep_their_answers_apart() -> None:
    solver = EquationSolver(num_processes=2, timeout_s=60)
    answers = await asyncio.gather(*(solver.run(f"x+1={n}") for n in range(8)))
    solver.close()
    assert [answer.lines for answer in answers] == [(f"x = {n - 1}",) for n in range(8)]


def test_defence_the_process_is_limited(process: SolverProcess) -> None:
    assert process.ask("x=1", 60) == ["x = 1"]
    limits = Path(f"/proc/{process.pid}/limits").read_text("ascii")
    rows = {row[:25].strip(): row[25:].split()[0] for row in limits.splitlines()}
    assert rows["Max address space"] == str(MEMORY_BYTES)
    assert rows["Max file size"] == rows["Max core file size"] == "0"
    assert int(rows["Max cpu time"]) < 60


def test_defence_the_process_gets_none_of_our_environment(process: SolverProcess) -> None:
    environment = Path(f"/proc/{process.pid}/environ").read_bytes()
    assert [item.split(b"=")[0] for item in environment.split(b"\0") if item] == [b"PYTHONPATH"]


def test_defence_a_call_that_takes_too_long_costs_its_process(process: SolverProcess) -> None:
    assert process.ask("x=1", 60) == ["x = 1"]
    first = process.pid
    asked = time.monotonic()
    assert process.ask(BLOW_UP, TIMEOUT_S) == []
    assert time.monotonic() - asked >= TIMEOUT_S  # it was the parent's limit that ended it
    assert process.pid != first
    assert not Path(f"/proc/{first}").exists()
    assert process.ask("x=2", 60) == ["x = 2"]


def test_defence_a_process_that_only_hangs_is_killed_too(process: SolverProcess) -> None:
    assert process.ask("x=1", 60) == ["x = 1"]
    first = process.pid
    os.kill(first, signal.SIGSTOP)  # uses no CPU, so no limit of its own can end it
    assert process.ask("x=1", 0.1) == []
    assert not Path(f"/proc/{first}").exists()
    assert process.ask("x=2", 60) == ["x = 2"]


async def test_defence_a_long_text_never_gets_to_the_process() -> None:
    solver = EquationSolver(num_processes=1, timeout_s=60)
    process = solver._processes[0]
    assert await solver.run("x=1") == PluginOutput(True, ("x = 1",))
    first = process.pid
    os.kill(first, signal.SIGSTOP)  # asking it would take a minute and cost the process
    assert await solver.run("x=" + "1" * MAX_CHARS) == PluginOutput.no_result()
    assert process.pid == first
    solver.close()


def test_defence_memory_is_bounded() -> None:
    source = (
        "from plugins_svc.solver_worker import limit_process; limit_process(); bytearray(2**30)"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, check=False)
    assert b"MemoryError" in done.stderr


def test_defence_cpu_is_bounded_when_no_parent_is_there_to_kill() -> None:
    source = (
        "import plugins_svc.solver_worker as worker\n"
        "worker.CPU_SECONDS = 0; worker.limit_cpu()\n"
        "while True: pass"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, check=False)
    assert done.returncode == -signal.SIGXCPU


def test_a_killed_process_is_replaced(process: SolverProcess) -> None:
    assert process.ask("x=1", 60) == ["x = 1"]
    os.kill(process.pid, signal.SIGKILL)
    assert process.ask("x=2", 60) == []
    assert process.ask("x=3", 60) == ["x = 3"]


def test_the_worker_ends_with_its_input() -> None:
    command = [sys.executable, "-m", "plugins_svc.solver_worker"]
    done = subprocess.run(command, input=b'"x=1"\n"?"\n', capture_output=True, check=True)
    assert done.stdout == b'[]\n["x = 1"]\n[]\n'
