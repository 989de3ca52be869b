"""CPU time by kind of process, of real processes with names like Ray's."""

import os
import subprocess
import sys

import pytest

from serve_app.bench.load.cpu_time import CpuMeter, kind_of, used

BUSY_S = 0.2
# It has the name of an ingress among its arguments, burns CPU time, and waits for its end.
BURN = f"""
import sys, time
while time.process_time() < {BUSY_S}: pass
print(flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("ray::ServeReplica:moss:Ingress.handle_request", "ingress"),
        ("ray::ServeReplica:moss:MossServer", "replica"),
        ("ray::TPWorker.run_loop", "replica"),
        ("ray::ProxyActor", "proxy"),
        ("/lib/valkey-server unixsocket:/tmp/store.sock", "store"),
        ("ray::ServeController.listen_for_change", "other"),
        ("python -m serve_app.cli.main serve", "other"),
    ],
)
def test_what_a_process_does(command: str, kind: str) -> None:
    assert kind_of(command) == kind


def test_the_time_of_children_is_counted_by_kind() -> None:
    meter = CpuMeter(os.getpid())
    before = meter.read()
    command = [sys.executable, "-c", BURN, "ray::ServeReplica:moss:Ingress"]
    with subprocess.Popen(command, stdin=-1, stdout=-1) as child:
        assert child.stdout is not None
        child.stdout.readline()
        after = used(before, meter.read())
    assert BUSY_S / 2 < after["ingress"] < 10 * BUSY_S  # the kernel counts in ticks
    assert after["proxy"] == after["replica"] == 0
