"""The guard ends the processes that a server leaves behind, even after a SIGKILL."""

import subprocess
import sys
import time
from pathlib import Path

import psutil

from serve_app.cli.serve.guard import WATCH_S

# A "server" with a child and a grandchild in their own sessions; it prints their pids.
SERVER = """
import subprocess, sys
from serve_app.cli.serve.guard import Guard
with Guard():
    child = subprocess.Popen(
        [sys.executable, "-c", sys.argv[1], sys.argv[2]],
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    )
    print(child.pid, child.stdout.readline(), flush=True)
    sys.stdin.readline()
"""
CHILD = """
import subprocess, sys, time
print(subprocess.Popen([sys.executable, "-c", sys.argv[1]], start_new_session=True).pid, flush=True)
time.sleep(300)
"""
GRANDCHILD = "import time; time.sleep(300)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)"


def start_server(
    grandchild: str = GRANDCHILD,
) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, CHILD, grandchild],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[4],
    )
    assert server.stdout is not None
    return server, [psutil.Process(int(pid)) for pid in server.stdout.readline().split()]


def assert_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def test_an_orderly_exit_ends_all_descendants() -> None:
    server, left = start_server()
    assert len(left) == 2
    server.communicate("\n")
    assert server.returncode == 0
    assert_gone(left)


def test_a_killed_server_leaves_no_descendants() -> None:
    server, left = start_server()
    time.sleep(2 * WATCH_S)
    server.kill()
    server.communicate()
    assert_gone(left)


def test_an_orphaned_grandchild_is_ended_too() -> None:
    server, (child, grandchild) = start_server()
    time.sleep(2 * WATCH_S)
    child.kill()
    server.kill()
    server.communicate()
    assert_gone([grandchild])


def test_a_process_that_ignores_sigterm_is_killed() -> None:
    server, left = start_server(STUBBORN)
    server.communicate("\n")
    assert_gone(left)


def test_an_unrelated_process_is_left_alone() -> None:
    unrelated = subprocess.Popen([sys.executable, "-c", GRANDCHILD])
    try:
        server, left = start_server()
        server.communicate("\n")
        assert_gone(left)
        assert unrelated.poll() is None
    finally:
        unrelated.kill()
        unrelated.wait()
