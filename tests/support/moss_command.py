"""Runs the `moss` command to its end in its own process."""

import subprocess
import sys
from pathlib import Path


def run_moss(
    *arguments: str,
    stdin: str | None = None,
    directory: Path | None = None,
    timeout_s: float = 120,
) -> subprocess.CompletedProcess[str]:
    """Its exit status and what it printed. `directory` is where it runs; default: here."""
    return subprocess.run(
        [sys.executable, "-m", "serve_app.cli.main", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        cwd=directory,
    )
