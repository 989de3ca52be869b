"""The guard ends what a server left behind, also when the server had no chance to."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

# A "server" that starts a child, which starts a grandchild and goes, then says who they are.
SERVER = """
import subprocess, sys
from serve_app.cli.guard import Guard
sleeper = "import time; time.sleep(300)"
parent = (
    "import subprocess, sys; nowhere = subprocess.DEVNULL;"
    "print(subprocess.Popen([sys.executable, '-c', sys.argv[1]], stdout=nowhere).pid)"
)
with Guard():
    child = subprocess.Popen(
        [sys.executable, "-c", sleeper], stdout=subprocess.DEVNULL, start_new_session=True
    )
    orphan = subprocess.run([sys.executable, "-c", parent, sleeper], stdout=subprocess.PIPE)
    print(child.pid, orphan.stdout.decode().strip(), flush=True)
    sys.stdin.readline()
"""
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)"


def start_server() -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert server.stdout is not None
    return server, [psutil.Process(int(pid)) for pid in server.stdout.readline().split()]


def assert_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("end", ["orderly", "killed"])
def test_nothing_outlives_the_server(end: str) -> None:
    server, left = start_server()
    assert len(left) == 2
    assert all(process.is_running() for process in left)
    if end == "killed":
        server.kill()
        server.communicate()
    else:
        server.communicate("\n")
    assert_gone(left)


def test_a_process_that_ignores_sigterm_is_killed() -> None:
    server = SERVER.replace('"import time; time.sleep(300)"', repr(STUBBORN))
    run = subprocess.run(
        [sys.executable, "-c", server], input="\n", stdout=subprocess.PIPE, text=True
    )
    assert run.returncode == 0
    for pid in map(int, run.stdout.split()):
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_process_without_the_mark_is_left_alone() -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    try:
        server, left = start_server()
        server.communicate("\n")
        assert_gone(left)
        time.sleep(0.1)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
