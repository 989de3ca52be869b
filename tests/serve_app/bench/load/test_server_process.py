"""A server process that fails to start; the end-to-end tests cover those that run."""

import signal
from pathlib import Path

import pytest

from serve_app.bench.load.errors import BenchError
from serve_app.bench.load.server_process import ServerProcess, running_server


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
