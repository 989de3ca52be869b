"""The command: arguments, what it prints, the file that it writes, its status."""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from moss_tp.gpu_check.check import Plan
from moss_tp.gpu_check.part import PARTS, Part, chosen_parts
from moss_tp.gpu_check.run import Result, run_parts

BUDGET_S = 240.0
SIZES = {"cuda": "moss", "cpu": "tiny"}
ROOT = Path(__file__).parents[2]


def main(arguments: list[str]) -> int:
    """0: all verdicts pass. 1: one does not, or a part did not come to its end. 2: usage."""
    options = _parser().parse_args(arguments)
    try:
        parts = chosen_parts(options.only.split(",") if options.only else [])
    except ValueError as error:
        print(f"gpu_check: {error}", file=sys.stderr)
        return 2
    if options.device == "cuda" and not has_gpu():
        print("gpu_check: there is no CUDA device", file=sys.stderr)
        return 2
    return check(parts, options.device, options.size, options.budget, options.out, options.start)


def check(
    parts: list[Part],
    device: str,
    size: str | None,
    budget_s: float,
    out: Path | None,
    start_method: str = "forkserver",
) -> int:
    """Runs `parts` and prints their verdicts, a line each. Returns the status."""
    is_full = (size or SIZES[device]) == "moss"
    report: dict[str, Any] = {"command": sys.argv, **describe(device), "parts": {}}
    print(json.dumps({key: report[key] for key in ("card", "torch", "triton", "commit")}))
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as directory:
        plan = Plan(device, "moss" if is_full else "tiny", Path(directory))
        note = partial(_note, report, out)
        results = run_parts(parts, plan, budget_s, note, start_method)
    misses = [v.line for result in results.values() for v in result.verdicts if not v.passes]
    print(f"\n{len(misses)} of the verdicts are misses" if misses else "\nall verdicts pass")
    for miss in misses:
        print(f"  {miss}")
    return int(not all(result.passes for result in results.values()))


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
        "commit": _output("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _note(report: dict[str, Any], out: Path | None, part: Part, result: Result) -> None:
    """Prints a part's verdicts, and writes everything so far."""
    print(f"\n{part.name}: {part.title} [{result.seconds:.1f} s]")
    for verdict in result.verdicts:
        print(f"  {verdict.line}")
    if result.error:
        print(f"  {result.error}")
    sys.stdout.flush()
    lines = [{**asdict(v), "share": v.share, "passes": v.passes} for v in result.verdicts]
    report["parts"][part.name] = {**asdict(result), "verdicts": lines}
    if out is not None:
        new = out.with_name(f"{out.name}.new")
        new.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
        new.replace(out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("gpu_check", description=__doc__)
    names = ", ".join(part.name for part in PARTS)
    parser.add_argument("--only", metavar="PART,…", help=f"of {names}; and what they need")
    parser.add_argument(
        "--budget", type=float, default=BUDGET_S, help="seconds in all (%(default)s)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write results as JSON")
    parser.add_argument("--device", choices=tuple(SIZES), default="cuda")
    parser.add_argument("--size", choices=("moss", "tiny"), help="default: moss; on a CPU tiny")
    parser.add_argument("--start", choices=("forkserver", "spawn"), default="forkserver")
    return parser


def has_gpu() -> bool:
    """Without looking for long, and not by torch in this process: it forks others, which must not
    find a GPU in use."""
    if any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/dxg")):
        return True
    asked = "import torch; raise SystemExit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", asked]).returncode == 0


def _output(*command: str) -> str:
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return done.stdout.strip()
    return ""


def _version(package: str) -> str:
    with suppress(PackageNotFoundError):
        return version(package)
    return ""
