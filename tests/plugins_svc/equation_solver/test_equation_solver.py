"""The equation solver plugin: answers, concurrency and the end of its worker processes."""

import asyncio
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from plugins_svc.equation_solver.plugin import EquationSolver
from plugins_svc.equation_solver.spec import EQUATION_SOLVER
from plugins_svc.expressions.arithmetic import MAX_CHARS
from plugins_svc.sdk.output import PluginOutput
from tests.support.plugin_checks import check_plugin
from tests.support.waiting import wait_until


@pytest.fixture
def solver() -> Iterator[EquationSolver]:
    solver = EquationSolver(num_processes=1, timeout_s=60)
    yield solver
    solver.close()


async def test_it_is_a_plugin() -> None:
    spec = replace(EQUATION_SOLVER, create=lambda settings: EquationSolver(1, timeout_s=60))
    await check_plugin(spec, {}, ("x^2=4", "2x=6", "x+y=3;x-y=1"), ("x=?", "x*y=72", "1=2"))


async def test_answers_come_as_lines(solver: EquationSolver) -> None:
    assert await solver.run("x^2=4") == PluginOutput(True, ("x_0 = -2", "x_1 = 2"))
    assert await solver.run("x=?") == PluginOutput.no_result()
    assert await solver.run("x=1\ny=2") == PluginOutput.no_result()


async def test_concurrent_calls_keep_their_answers_apart() -> None:
    solver = EquationSolver(num_processes=2, timeout_s=60)
    answers = await asyncio.gather(*(solver.run(f"x+1={n}") for n in range(8)))
    solver.close()
    assert [answer.lines for answer in answers] == [(f"x = {n - 1}",) for n in range(8)]


async def test_defence_a_long_text_never_reaches_the_process() -> None:
    solver = EquationSolver(num_processes=1, timeout_s=60)
    plugin = replace(EQUATION_SOLVER, create=lambda settings: solver).start({})
    process = solver._processes[0]
    assert await plugin.run("x=1") == PluginOutput(True, ("x = 1",))
    first = process.pid
    os.kill(first, signal.SIGSTOP)  # a call that reached it would take a minute and the process
    assert await plugin.run("x=" + "1" * MAX_CHARS) == PluginOutput.no_result()
    assert process.pid == first
    plugin.close()


async def test_a_check_replaces_a_worker_that_hangs_and_waits_for_nothing() -> None:
    solver = EquationSolver(num_processes=1, timeout_s=1)
    assert (await solver.run("x=1")).ok or (await solver.run("x=1")).ok, "it has started"
    (process,) = solver._processes
    first = process.pid
    os.kill(first, signal.SIGSTOP)
    async with asyncio.timeout(0.5):
        for _ in range(10):
            await solver.check()
    assert await asyncio.to_thread(wait_until, lambda: process.pid != first, 30)
    for _ in range(10):
        await solver.check()
    assert (await solver.run("x=1")).ok or (await solver.run("x=1")).ok
    solver.close()


async def test_a_check_leaves_a_worker_that_answers(solver: EquationSolver) -> None:
    assert (await solver.run("x=1")).ok
    (process,) = solver._processes
    first = process.pid
    for _ in range(3):
        await solver.check()
        assert (await solver.run("x=1")).ok
    assert process.pid == first


def test_close_ends_every_worker_process() -> None:
    solver = EquationSolver(num_processes=2)
    pids = [process.pid for process in solver._processes]
    solver.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
