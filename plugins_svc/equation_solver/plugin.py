"""The equation solver: answers MOSS's `Solve` with sympy in warm, limited worker processes.

This process never imports sympy: a call that blows up costs one worker and TIMEOUT_S, nothing
else.
"""

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue

from plugins_svc.equation_solver.worker_process import WorkerProcess
from plugins_svc.sdk.output import PluginOutput

NUM_PROCESSES = 2
TIMEOUT_S = 3.0


class EquationSolver:
    """Answers `Solve("equations")` with one line an unknown or root, such as `x = 26`."""

    def __init__(self, num_processes: int = NUM_PROCESSES, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(num_processes, thread_name_prefix="solver")
        self._processes = [WorkerProcess() for _ in range(num_processes)]
        self._idle: SimpleQueue[WorkerProcess] = SimpleQueue()
        for process in self._processes:
            self._idle.put(process)
        self._checked: Future[list[str]] | None = None

    async def ready(self) -> str:
        """Nothing: it is ready at once."""
        return ""

    async def run(self, argument: str) -> PluginOutput:
        """The roots; no result for text without an equation or a definite solution, or too slow."""
        loop = asyncio.get_running_loop()
        lines = await loop.run_in_executor(self._threads, self._solve, argument)
        return PluginOutput(True, tuple(lines)) if lines else PluginOutput.no_result()

    async def check(self) -> None:
        """Has a worker that is idle, but does not answer, replaced. One at a time."""
        if self._checked is None or self._checked.done():
            self._checked = self._threads.submit(self._solve, "")

    def close(self) -> None:
        """Kill the worker processes, after the calls that they are answering."""
        self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            process.close()

    def _solve(self, text: str) -> list[str]:
        process = self._idle.get()  # never blocks: there are as many processes as threads
        try:
            return process.solve(text, self._timeout_s)
        finally:
            self._idle.put(process)
