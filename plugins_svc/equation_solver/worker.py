"""The process that runs sympy: `python -m plugins_svc.equation_solver.worker`.

It sets its own limits before it reads any input: memory and files once, CPU seconds for each call.
It prints `[]` when it is ready, then for each call (a JSON string on a line of stdin) a JSON list
of lines, empty for no result. It exits at end of input, so it cannot outlive its parent.
"""

import json
import sys
from contextlib import redirect_stdout

from plugins_svc.sdk.limited_process import limit_cpu_from_now, limit_memory_and_files

MEMORY_BYTES = 512 * 2**20
CPU_SECONDS = 4
WARM_UP = ("2x=1", "x^2=2", "x+y=3;x-y=1")  # so that sympy's lazy imports are done


def limit_process() -> None:
    """Limit this process to MEMORY_BYTES of address space, no written file and no core dump."""
    limit_memory_and_files(MEMORY_BYTES)


def limit_cpu() -> None:
    """Allow CPU_SECONDS from now on, in case the parent is no longer there to kill us."""
    limit_cpu_from_now(CPU_SECONDS)


def answer(text: str) -> list[str]:
    """The solver's lines; none for what it cannot or may not solve."""
    from plugins_svc.equation_solver.solver import solve

    try:
        return solve(text)
    except MemoryError:
        raise
    except Exception:  # sympy raises nearly any type; each means no answer
        return []


def main() -> None:
    """Answer calls until the input ends. Exits with status 1 when memory runs out."""
    limit_process()
    for call in WARM_UP:
        answer(call)
    out = sys.stdout
    print("[]", file=out, flush=True)
    with redirect_stdout(sys.stderr):
        for line in sys.stdin:
            limit_cpu()
            try:
                lines = answer(json.loads(line))
            except MemoryError:
                sys.exit(1)
            print(json.dumps(lines), file=out, flush=True)


if __name__ == "__main__":
    main()
