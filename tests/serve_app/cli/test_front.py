"""`moss front` writes a configuration, and runs HAProxy until it has drained."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
from click.testing import CliRunner

from serve_app.cli.front import command
from serve_app.front.run import check_config, find_haproxy
from tests.serve_app.front.certificate import write_certificate
from tests.serve_app.front.conftest import free_port

MOSS = [sys.executable, "-m", "serve_app.cli.main", "front"]


def test_it_writes_a_file_or_to_the_screen(tmp_path: Path) -> None:
    certificate, file = write_certificate(tmp_path), tmp_path / "haproxy.cfg"
    options = ["--cert", str(certificate), "--backend", "127.0.0.1:1", "--backend", "[::1]:2"]
    shown = CliRunner().invoke(command, options, catch_exceptions=False, standalone_mode=False)
    assert f"bind *:443 ssl crt {certificate} alpn h2,http/1.1" in shown.output
    assert "server moss1 [::1]:2" in shown.output
    written = CliRunner().invoke(command, [*options, "--out", str(file)], standalone_mode=False)
    assert written.output == ""
    assert file.read_text() == shown.output
    check_config(find_haproxy(), file)


def test_the_world_needs_a_certificate() -> None:
    done = subprocess.run(MOSS, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "without a certificate" in done.stderr


def test_it_runs_until_it_is_told_to_end() -> None:
    port = free_port()
    options = ["--run", "--listen", f"127.0.0.1:{port}", "--backend", "127.0.0.1:9"]
    process = subprocess.Popen(
        [*MOSS, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        response = _first_answer(f"http://127.0.0.1:{port}/")
        assert response.json()["error"]["code"] == "overloaded"
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
    finally:
        process.kill()
        process.wait()


def _first_answer(url: str) -> httpx.Response:
    deadline = time.monotonic() + 20
    while True:
        try:
            return httpx.get(url)
        except httpx.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
