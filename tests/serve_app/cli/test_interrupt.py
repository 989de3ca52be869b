"""A KeyboardInterrupt that a library swallows comes again when the command asks."""

import subprocess
import sys
from pathlib import Path

from serve_app.bench.load.server_process import free_port

SWALLOWS = """
import os, signal, sys
from contextlib import suppress
from serve_app.cli.interrupt import check_interrupts, remember_interrupts
remember_interrupts()
check_interrupts()
with suppress(BaseException):
    os.kill(os.getpid(), signal.SIGINT)
    print("it was not raised")
try:
    check_interrupts()
except KeyboardInterrupt:
    print("it came again")
"""
# Importing the command gets a Ctrl-C, and forgets it.
COMMAND = """
import os, signal, sys
from contextlib import suppress
from pathlib import Path
from serve_app.cli import main
def import_module(name):
    with suppress(BaseException):
        os.kill(os.getpid(), signal.SIGINT)
    return imported(name)
imported, main.import_module = main.import_module, import_module
sys.argv = ["moss", "serve", "--data-dir", "data", "--port", sys.argv[1]]
main.main()
"""
ROOT = Path(__file__).parents[3]


def run(script: str, *arguments: str, directory: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{script}"]
    return subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=120, cwd=directory
    )


def test_a_swallowed_interrupt_is_raised_again(tmp_path: Path) -> None:
    assert run(SWALLOWS, directory=tmp_path).stdout == "it came again\n"


def test_a_server_does_not_start_after_a_swallowed_interrupt(tmp_path: Path) -> None:
    shown = run(COMMAND, str(free_port()), directory=tmp_path)
    assert (shown.returncode, shown.stdout, shown.stderr.strip()) == (130, "", "")
