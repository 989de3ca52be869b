"""The process in which sympy runs: `python -m plugins_svc.solver_worker`, one JSON line a call.

It limits itself before it reads anything: memory, files, and CPU seconds anew for every call. It
writes `[]` once when it is ready, then for each call (a JSON string on stdin) a JSON list of
lines, empty for no result. End of input ends it, so it cannot outlive its parent.
"""

import json
import resource
import sys
import time
from contextlib import redirect_stdout

MEMORY_BYTES = 512 * 2**20
CPU_SECONDS = 4
WARM_UP = ("2x=1", "x^2=2", "x+y=3;x-y=1")  # loads what sympy loads when first used


def limit_process() -> None:
    """At most MEMORY_BYTES of address space; no file written, no core dumped."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def limit_cpu() -> None:
    """CPU_SECONDS from now on: what holds when the parent is no longer there to kill."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + CPU_SECONDS, hard))


def answer(text: str) -> list[str]:
    """The solver's lines; none for anything it cannot or may not solve."""
    from plugins_svc.solver import solve

    try:
        return solve(text)
    except MemoryError:
        raise
    except Exception:  # sympy raises nearly anything; whatever it is, there is no answer
        return []


def main() -> None:
    """Answer calls until the input ends; a process that ran out of memory ends at once."""
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
