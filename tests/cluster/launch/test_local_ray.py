"""A private Ray: on loopback, with its own token, and no process left after it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.launch.local_ray import _own_sigterm

SCRIPT = """
import os, signal, sys
sys.path.insert(0, ".")
if "imported" in sys.argv:
    import ray
handler = signal.getsignal(signal.SIGTERM)
VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER")
before = [os.environ.get(name) for name in VARIABLES]
from cluster.launch.local_ray import local_ray
from tests.support.processes import listening_ports
import psutil
signal.alarm(10_000)
with local_ray(num_cpus=2) as own_ray:
    import ray
    assert signal.alarm(0) > 9000, "a timer of the caller stays"
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert signal.getsignal(signal.SIGTERM) is handler
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    addresses = set(listening_ports(family).values())
    assert addresses <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}, addresses
    assert ray.get(ray.remote(lambda: 7).remote()) == 7
    niceness = ray.get(ray.remote(lambda: os.nice(0)).remote())
    assert niceness == os.nice(0), niceness
assert own_ray.dashboard is None
assert not own_ray.directory.exists()
assert [os.environ.get(name) for name in VARIABLES] == before
assert psutil.wait_procs(family[1:], timeout=10)[1] == []
print("passed")
"""


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=280,
        cwd=Path(__file__).parents[3],
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
    )


def test_ray_is_private_and_leaves_no_process() -> None:
    shown = run(SCRIPT)
    assert shown.stdout == "passed\n", shown.stderr


def test_ray_is_private_even_if_it_was_imported_before() -> None:
    shown = run(SCRIPT, "imported")
    assert shown.stdout == "passed\n", shown.stderr


SIGNALLED = """
import os, signal, sys, threading, time
sys.path.insert(0, ".")
from cluster.launch.local_ray import local_ray
received, alarms = [], []
signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
signal.signal(signal.SIGALRM, lambda number, frame: alarms.append(number))
signal.setitimer(signal.ITIMER_REAL, 2, 1000)  # Ray takes longer
is_up = threading.Event()
def send():
    while not is_up.wait(0.4):  # Ray cannot take one while it handles another
        os.kill(os.getpid(), signal.SIGTERM)
sender = threading.Thread(target=send)
sender.start()
with local_ray(num_cpus=1):
    is_up.set()
    sender.join()
    time.sleep(4)  # longer than the alarm of Ray's own handler
    before = len(received)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.1)
    assert len(received) == before + 1
assert len(alarms) == 1, "the caller's own timer"
assert signal.getitimer(signal.ITIMER_REAL)[1] == 1000
print("passed", before > 1)
"""


def test_a_sigterm_at_any_moment_of_the_start_reaches_our_handler_only() -> None:
    shown = run(SIGNALLED)
    assert (shown.returncode, shown.stdout) == (0, "passed True\n"), shown.stderr


def test_a_handler_that_python_does_not_know_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """getsignal says None where a program that embeds Python has set its own."""
    monkeypatch.setattr(signal, "getsignal", lambda number: None)
    with _own_sigterm():
        pass
