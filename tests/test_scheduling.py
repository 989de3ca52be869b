"""Of the tests in several processes: what becomes of those whose process dies."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DIES = """
import os
from pathlib import Path

def test_first(): pass
def test_dies():
    with Path("begun").open("a") as file:
        file.write("x")
    os._exit(1)
def test_last(): pass
"""
HANGS = """
from itertools import repeat
from pathlib import Path

def test_hangs():
    with Path("begun").open("a") as file:
        file.write("x")
    any(repeat(False))  # a loop of C, in which no signal is handled
"""


def run(directory: Path, num_processes: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "tests.scheduling", "-q"]
    return subprocess.run(
        [*command, "--numprocesses", f"{num_processes}", "--dist", "loadfile"],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("num_processes", [1, 2])
@pytest.mark.parametrize(("text", "num_passed"), [(DIES, 5), (HANGS, 3)])
def test_what_ends_its_process_is_run_once(
    tmp_path: Path, text: str, num_passed: int, num_processes: int
) -> None:
    (tmp_path / "test_ends.py").write_text(text)
    (tmp_path / "test_other.py").write_text("def test_one(): pass\ndef test_two(): pass\n")
    (tmp_path / "test_short.py").write_text("def test_only(): pass\n")
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nfaulthandler_timeout = 5\nfaulthandler_exit_on_timeout = true\ntimeout = 3\n"
    )
    done = run(tmp_path, num_processes)
    assert f"1 failed, {num_passed} passed" in done.stdout, done.stdout + done.stderr
    assert (tmp_path / "begun").read_text() == "x"
