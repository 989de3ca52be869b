"""Runs parts one after the other, each in a process of its own: one that hangs or crashes costs
only itself.

The processes are forked from a server that has imported torch but not touched the GPU: importing it
anew for each part would take a quarter of the time. A part holds one end of a pipe that closes with
this process, however that ends: then the part kills itself and all that it has started.
"""

import faulthandler
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib import import_module
from multiprocessing import get_context
from multiprocessing import process as processes
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from moss_tp.gpu_check.check import Check, Plan
from moss_tp.gpu_check.part import Part
from moss_tp.gpu_check.verdict import Verdict, broken

PRELOADED = ["torch", "triton", "moss_tp.engine.llm_engine", "moss_tp.model"]
LEAST_S = 5.0  # a part is not begun with less time than this
_LOG_CHARACTERS = 3000
_END_S = 5.0  # what a killed process may take to be gone; one that the driver holds never is


@dataclass
class Result:
    """What a part has found. `error` is empty if it came to its end."""

    seconds: float = 0.0
    error: str = ""
    verdicts: list[Verdict] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def passes(self) -> bool:
        return not self.error and all(verdict.passes for verdict in self.verdicts)


def run_parts(
    parts: list[Part],
    plan: Plan,
    budget_s: float,
    note: Callable[[Part, Result], None],
    start_method: str = "forkserver",
) -> dict[str, Result]:
    """All results by the parts' names. `note` is called after each part."""
    start, results = time.monotonic(), dict[str, Result]()
    for part in parts:
        left = budget_s - (time.monotonic() - start)
        known = replace(plan, found={name: result.figures for name, result in results.items()})
        if left < LEAST_S:
            result = Result(error="not run: no time was left")
            result.verdicts.append(broken(part.name, result.error))
        else:
            result = run_part(part, known, min(part.limit_s, left), start_method)
        results[part.name] = result
        note(part, result)
    return results


def run_part(part: Part, plan: Plan, limit_s: float, start_method: str = "forkserver") -> Result:
    """One part, killed after `limit_s` seconds with all processes that it has started."""
    context: Any = get_context(start_method)
    if start_method == "forkserver":
        context.set_forkserver_preload(PRELOADED)
    (receiver, sender), (watch, life) = context.Pipe(duplex=False), context.Pipe(duplex=False)
    log = plan.directory / f"{part.name}.log"
    process = context.Process(target=_run, args=(part, plan, sender, watch, log, limit_s))
    start, result = time.monotonic(), Result()
    try:
        process.start()
        sender.close()
        watch.close()
        if not _receive(receiver, result, start + limit_s):
            result.error = f"no end after {limit_s:.0f} s"
    finally:
        if process.pid is not None and not _end(process, log.with_suffix(".pid")):
            result.error += "; its process could not be ended"
        life.close()
        receiver.close()
    if not result.error and process.exitcode != 0:
        result.error = f"it ended with status {process.exitcode}"
    result.seconds = round(time.monotonic() - start, 2)
    if result.error:
        result.verdicts.append(broken(part.name, result.error.splitlines()[-1]))
        result.figures["log"] = _tail(log)
    return result


def _receive(receiver: Connection, result: Result, deadline: float) -> bool:
    """Whether the part has ended, in whatever way, before the deadline."""
    with suppress(EOFError):
        while receiver.poll(max(0.0, deadline - time.monotonic())):
            kind, name, value = receiver.recv()
            if kind == "verdict":
                result.verdicts.append(value)
            elif kind == "figure":
                result.figures[name] = value
            elif kind == "error":
                result.error = value
            else:
                return True
        return False
    result.error = result.error or "its process is gone"
    return True


def _end(process: Any, pid_file: Path) -> bool:
    """Kills the part's process group, for it may have ranks of its own; or, as long as it imports,
    the process. Whether it is gone."""
    process.join(1)  # it may have said that it ended
    with suppress(OSError, ValueError):
        os.killpg(int(pid_file.read_text()), signal.SIGKILL)
    with suppress(OSError):
        process.kill()
    process.join(_END_S)
    if process.is_alive():
        # Else this interpreter would wait for it at its exit, without end.
        vars(processes)["_children"].discard(process)
        return False
    return True


def _run(
    part: Part, plan: Plan, sender: Connection, watch: Connection, log: Path, limit_s: float
) -> None:
    """What the process of a part does."""
    os.setsid()
    threading.Thread(target=_end_with, args=(watch,), daemon=True).start()
    log.with_suffix(".pid").write_text(str(os.getpid()))
    with log.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    faulthandler.dump_traceback_later(max(1.0, limit_s - 1))  # to the log: where it hangs
    check = Check(plan, lambda kind, name, value: sender.send((kind, name, value)))
    try:
        import_module(f"{part.home}.{part.name}").run(check)
    except BaseException as error:
        sender.send(("error", "", f"{type(error).__name__}: {error}"))
        traceback.print_exc()
    sender.send(("end", "", None))
    sender.close()
    os._exit(0)  # also where a GPU's driver would wait


def _end_with(watch: Connection) -> None:
    """Ends this process group when `watch` closes: the command is gone."""
    with suppress(EOFError, OSError):
        watch.recv()
    os.killpg(0, signal.SIGKILL)


def _tail(log: Path) -> str:
    with suppress(OSError):
        return log.read_text("utf-8", errors="replace")[-_LOG_CHARACTERS:]
    return ""
