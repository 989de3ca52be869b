"""However `moss serve` ends, nothing of it is left: no process, no port."""

import signal
from pathlib import Path

import psutil

from serve_app.cli.serve.guard import WATCH_S
from tests.e2e.moss_process import (
    STOP_TIMEOUT_S,
    MossProcess,
    listening_ports,
    living_in,
    ray_directory,
    still_alive,
)
from tests.support.tiny_moss import make_checkpoint


def test_ctrl_c_stops_in_order(tmp_path: Path) -> None:
    """SIGTERM does the same: every other server of these tests is stopped so, and checked."""
    with MossProcess(tmp_path) as server:
        chat = server.ask("你好")
        started = server.descendants()
        ray_dir = ray_directory(started)
        assert server.port in listening_ports(started)
        server.press_ctrl_c()
        assert server.process.wait(STOP_TIMEOUT_S) == 0
        assert still_alive(started, 1) == []
        assert living_in(tmp_path) == []
        assert not ray_dir.exists()
    assert server.output.splitlines()[-1] == "moss: stopped"
    assert all(line.startswith("moss: ") for line in server.output.splitlines())
    assert chat["uid"] not in server.output


def test_after_a_sigkill_the_rest_dies_too_and_chats_live_on(tmp_path: Path) -> None:
    with MossProcess(tmp_path) as server:
        chat = server.ask("你好")
        started = server.descendants()
        server.stop(signal.SIGKILL)
        assert still_alive(started, 30) == []
    with MossProcess(tmp_path) as server:
        again = server.ask("你是谁？", uid=chat["uid"])
        assert again["history"][0] == chat["history"][0]
        started = server.descendants()
        server.press_ctrl_c()
        server.wait_for("stopping")
        server.press_ctrl_c()
        assert server.process.wait(STOP_TIMEOUT_S) in (0, 130)  # 0: it was done already
        assert still_alive(started, 10) == []
        assert living_in(tmp_path) == []


def test_ctrl_c_while_it_starts(tmp_path: Path) -> None:
    server = MossProcess(tmp_path)
    server.launch()
    server.wait_for("starting Ray")
    seen: set[psutil.Process] = set()
    while len(seen) < 5:  # guard, store and the first of Ray
        assert server.process.poll() is None, server.output
        seen |= set(server.descendants())
    server.press_ctrl_c()
    assert server.process.wait(STOP_TIMEOUT_S) == 0
    assert still_alive(list(seen), WATCH_S) == []
    assert "Traceback" not in server.output


def test_a_model_that_does_not_load_is_one_line(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "model")
    (model / "model-00002-of-00002.safetensors").unlink()
    server = MossProcess(tmp_path, model=model)
    server.launch()
    assert server.process.wait(300) == 1
    *progress, last = server.output.splitlines()
    assert "loading model" in progress[-1] or "still loading" in progress[-1]
    assert "model-00002-of-00002.safetensors" in last
    assert last.startswith("moss: ")
