"""The command: arguments, what it prints, the file that it writes, its status."""

import argparse
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from math import isfinite
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from moss_tp.errors import ConfigError
from moss_tp.gpu_check.check import Plan
from moss_tp.gpu_check.part import PARTS, Part, chosen_parts
from moss_tp.gpu_check.report import plain
from moss_tp.gpu_check.run import Result, run_parts
from moss_tp.hardware.present import has_gpu
from moss_tp.kernels.cuda.runtime.triton_import import import_triton

BUDGET_S = 240.0
SIZES = {"cuda": "moss", "cpu": "tiny"}
ROOT = Path(__file__).parents[2]
DESCRIPTION = """Check that this GPU computes MOSS right, and how near it comes to its own limits.

Compares kernels, tokens and logits with references, and speed and memory with what the card was
measured to do in the same call, in parts, each with a time limit. A model is not needed. The
status is 1 if a figure misses its bar or a part does not come to its end.
"""
HELP = {
    "only": f"Of {', '.join(part.name for part in PARTS)}; and what they need.",
    "budget": "Seconds in all.",
    "out": "Write the results as JSON.",
    "device": "The CPU is for trying the check itself.",
    "size": "Default: moss; on a CPU tiny.",
}


def main(arguments: list[str]) -> int:
    """0: all verdicts pass. 1: one does not, or a part did not come to its end. 2: usage, no GPU
    or no Triton. 130: Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        parts = prepare(options.only, options.budget, options.out, options.device)
    except (ConfigError, ValueError) as error:
        print(f"gpu_check: {error}", file=sys.stderr)
        return 2
    try:
        return check(
            parts, options.device, options.size, options.budget, options.out, options.start
        )
    except KeyboardInterrupt:
        return 130


def prepare(only: str, budget_s: float, out: Path | None, device: str) -> list[Part]:
    """The parts to run. Raises ConfigError or ValueError for what could not work, or would lose the
    results: before anything runs."""
    parts = chosen_parts(only.split(",") if only else [])
    if not (isfinite(budget_s) and budget_s > 0):
        raise ValueError(f"the budget cannot be {budget_s} s")
    if out is not None and (out.is_dir() or not os.access(out.absolute().parent, os.W_OK)):
        raise ValueError(f"{out} cannot be written")
    import_triton()
    if device == "cuda" and not has_gpu():
        raise ValueError("there is no CUDA device")
    return parts


def check(
    parts: list[Part],
    device: str,
    size: str | None,
    budget_s: float,
    out: Path | None,
    start_method: str = "forkserver",
) -> int:
    """Runs `parts` and prints their verdicts, a line each. Returns the status. Whatever ends it,
    the part that runs ends, too."""
    kind = size or SIZES[device]
    names = [] if parts == list(PARTS) else ["--only", ",".join(part.name for part in parts)]
    words = [*names, "--budget", f"{budget_s:g}", "--device", device, "--size", kind]
    command = shlex.join(["python", "-m", "moss_tp.gpu_check", *words])
    report: dict[str, Any] = {"command": command, **describe(device), "parts": {}}
    print(json.dumps({key: report[key] for key in ("card", "torch", "triton", "commit")}))
    with _ended_by_sigterm(), tempfile.TemporaryDirectory(prefix="gpu-check-") as directory:
        plan = Plan(device, "moss" if kind == "moss" else "tiny", Path(directory))
        note = partial(_note, report, out, (directory, str(ROOT)))
        results = run_parts(parts, plan, budget_s, note, start_method)
    misses = [v.line for result in results.values() for v in result.verdicts if not v.passes]
    print(f"\nverdicts that are misses: {len(misses)}" if misses else "\nall verdicts pass")
    for miss in misses:
        print(f"  {miss}")
    return int(not all(result.passes for result in results.values()))


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM unwinds, as Ctrl-C does, so that nothing stays behind."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def describe(device: str) -> dict[str, Any]:
    """The card and the versions of what computes on it."""
    card = ""
    if device == "cuda":
        query = "--query-gpu=name,driver_version,memory.total"
        card = _output("nvidia-smi", query, "--format=csv,noheader")
    return {
        "card": card or device,
        "torch": _version("torch"),
        "triton": _version("triton"),
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "commit": _output("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD") or None,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _note(
    report: dict[str, Any],
    out: Path | None,
    folders: tuple[str, ...],
    part: Part,
    result: Result,
) -> None:
    """Prints a part's verdicts, and writes everything so far, without this machine's `folders`."""
    print(f"\n{part.name}: {part.title} [{result.seconds:.1f} s]")
    for verdict in result.verdicts:
        print(f"  {verdict.line}")
    if result.error:
        print(f"  {result.error}")
    sys.stdout.flush()
    lines = [{**asdict(v), "share": v.share, "passes": v.passes} for v in result.verdicts]
    report["parts"][part.name] = plain({**asdict(result), "verdicts": lines}, folders)
    if out is not None:
        new = out.with_name(f"{out.name}.new")
        new.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
        new.replace(out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "gpu_check",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", metavar="PART,…", default="", help=HELP["only"])
    parser.add_argument("--budget", type=float, default=BUDGET_S, help=HELP["budget"])
    parser.add_argument("--out", type=Path, metavar="FILE", help=HELP["out"])
    parser.add_argument("--device", choices=tuple(SIZES), default="cuda", help=HELP["device"])
    parser.add_argument("--size", choices=("moss", "tiny"), help=HELP["size"])
    parser.add_argument(
        "--start",
        choices=("forkserver", "spawn"),
        default="forkserver",
        help="How a part's process is started.",
    )
    return parser


def _output(*command: str) -> str:
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return done.stdout.strip()
    return ""


def _version(package: str) -> str:
    with suppress(PackageNotFoundError):
        return version(package)
    return ""
