"""A server process that fails to start; the end-to-end tests cover those that run."""

import signal
import socket
from pathlib import Path

import pytest

from serve_app.bench.load import server_process as module
from serve_app.bench.load.errors import BenchError
from serve_app.bench.load.server_process import PORTS, ServerProcess, free_port, running_server


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
