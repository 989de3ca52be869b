"""The guard ends all descendants, orphans too, and accepts that some have ended already."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from serve_app.cli.serve import guard
from tests.support.waiting import wait_until

# A child with a grandchild, whose pid it prints.
PARENT = "sleep 60 & echo $!; wait"
DEAF = "trap '' TERM; echo ready; exec sleep 60"


@pytest.fixture
def family() -> Iterator[tuple["subprocess.Popen[str]", psutil.Process]]:
    child = start(PARENT)
    assert child.stdout is not None
    grandchild = psutil.Process(int(child.stdout.readline()))
    yield child, grandchild
    if grandchild.is_running():
        grandchild.kill()
    child.kill()
    child.communicate()


def start(script: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True)


def ours(processes: set[psutil.Process], *known: psutil.Process) -> set[psutil.Process]:
    return processes & set(known)


def test_an_orphan_still_belongs_to_the_family(
    family: tuple["subprocess.Popen[str]", psutil.Process],
) -> None:
    child, grandchild = family
    itself = psutil.Process(child.pid)
    known = guard._update(set(), os.getpid())
    assert ours(known, itself, grandchild) == {itself, grandchild}
    child.kill()
    child.wait()
    assert ours(guard._update(set(), os.getpid()), itself, grandchild) == set()
    assert ours(guard._update(known, os.getpid()), itself, grandchild) == {grandchild}
    grandchild.kill()
    assert wait_until(lambda: not guard.is_alive(grandchild), 5)


def test_the_watch_ends_with_the_servers_pipe(
    family: tuple["subprocess.Popen[str]", psutil.Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    with io.FileIO(reading) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        os.close(writing)
        started = time.monotonic()
        known = guard.watch(os.getppid())  # the guard is itself a child of the server
    assert time.monotonic() - started < guard.WATCH_S
    assert family[1] in known
    assert psutil.Process() not in known


def test_a_process_that_ends_on_sigterm_needs_no_grace_period() -> None:
    child = start("exec sleep 60")
    started = time.monotonic()
    guard.end_all({psutil.Process(child.pid)})
    assert time.monotonic() - started < guard.GRACE_S
    child.communicate()
    assert child.returncode == -signal.SIGTERM


def test_a_process_that_ignores_sigterm_is_killed_after_the_grace_period(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guard, "GRACE_S", 0.2)
    child = start(DEAF)
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    guard.end_all({psutil.Process(child.pid)})
    child.communicate()
    assert child.returncode == -signal.SIGKILL


def test_ended_processes_are_no_error() -> None:
    child = start("exit 0")
    gone = psutil.Process(child.pid)
    assert wait_until(lambda: gone.status() == psutil.STATUS_ZOMBIE, 5)
    assert not guard.is_alive(gone)
    child.communicate()
    assert not guard.is_alive(gone)
    started = time.monotonic()
    guard.end_all({gone})
    assert time.monotonic() - started < 1
