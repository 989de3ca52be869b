"""A server process that fails to start; the end-to-end tests cover those that run."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from serve_app.bench.load import server_process as module
from serve_app.bench.load.errors import BenchError
from serve_app.bench.load.server_process import PORTS, ServerProcess, free_port, running_server
from tests.support.processes import still_alive

LAUNCH_AND_SLEEP = """
import sys, time
from pathlib import Path
from serve_app.bench.load.server_process import ServerProcess
server = ServerProcess(Path(sys.argv[1]), [])
server._command = [sys.executable, "-c", "import time; time.sleep(600)"]
server.launch()
print(server.process.pid, flush=True)
time.sleep(600)
"""


def test_a_server_that_does_not_start_is_an_error_with_its_output() -> None:
    with (
        pytest.raises(BenchError, match="did not start: moss: there is no model directory"),
        running_server(["--model", "./nothing"]),
    ):
        raise AssertionError("it is ready")


def test_stop_returns_the_exit_status_of_an_ended_server(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, ["--model", "./nothing"])
    server.launch()
    server.process.wait(60)
    assert server.stop(signal.SIGKILL) == 1
    assert server.output.startswith("moss: there is no model directory")


@pytest.mark.skipif(sys.platform != "linux", reason="no other kernel tells of a parent's end")
def test_a_server_ends_with_a_process_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LAUNCH_AND_SLEEP, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as bench:
        assert bench.stdout is not None
        server = psutil.Process(int(bench.stdout.readline()))
        bench.kill()
    assert still_alive([server], 10) == []


def test_free_ports_lie_below_those_that_the_kernel_gives_away() -> None:
    ports = {free_port() for _ in range(20)}
    assert len(ports) > 1 and ports <= set(PORTS)
    limits = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if limits.exists():
        assert PORTS.stop <= int(limits.read_text().split()[0])


def test_a_port_in_use_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as other:
        port = other.getsockname()[1]
        monkeypatch.setattr(module, "PORTS", range(port, port + 1))
        with pytest.raises(BenchError, match=f"no port from {port} to {port} is free"):
            free_port()
