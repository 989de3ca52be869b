"""The equation solver plugin: MOSS's `Solve`, on sympy in warm, limited worker processes.

It imports no sympy itself: a call that blows up costs one worker and TIMEOUT_S, nothing else.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

from plugins_svc.arithmetic import MAX_CHARS
from plugins_svc.sdk.output import PluginOutput
from plugins_svc.solver_process import SolverProcess

NUM_PROCESSES = 2
TIMEOUT_S = 3.0


class EquationSolver:
    """Answers `Solve("equations")` with one line an unknown or root, such as `x = 26`."""

    name = "equation_solver"
    call_name = "Solve"

    def __init__(self, num_processes: int = NUM_PROCESSES, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(num_processes, thread_name_prefix="solver")
        self._processes = [SolverProcess() for _ in range(num_processes)]
        self._idle: SimpleQueue[SolverProcess] = SimpleQueue()
        for process in self._processes:
            self._idle.put(process)

    async def run(self, argument: str) -> PluginOutput:
        """The lines; no result for what is no equation, has no one answer or takes too long."""
        if len(argument) > MAX_CHARS:
            return PluginOutput.no_result()
        loop = asyncio.get_running_loop()
        lines = await loop.run_in_executor(self._threads, self._ask, argument)
        return PluginOutput(True, tuple(lines)) if lines else PluginOutput.no_result()

    def close(self) -> None:
        """End the worker processes, after the calls that they are answering."""
        self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            process.close()

    def _ask(self, argument: str) -> list[str]:
        process = self._idle.get()  # never waits: there are as many processes as threads
        try:
            return process.ask(argument, self._timeout_s)
        finally:
            self._idle.put(process)
