"""However `moss serve` ends, it leaves no process and no open port."""

import signal
from pathlib import Path

import psutil

from serve_app.bench.load.server_process import STOP_TIMEOUT_S
from serve_app.cli.serve.guard import WATCH_S
from tests.e2e.moss_process import GONE_S, MossProcess
from tests.support.processes import listening_ports, ray_directory, still_alive, working_in
from tests.support.tiny_moss import make_checkpoint


def test_ctrl_c_stops_cleanly(tmp_path: Path) -> None:
    """So does SIGTERM, with which MossProcess stops the servers of all other tests."""
    with MossProcess(tmp_path) as server:
        chat = server.ask("你好")
        started = server.descendants()
        ray_dir = ray_directory(started)
        assert server.port in listening_ports(started)
        server.press_ctrl_c()
        assert server.process.wait(STOP_TIMEOUT_S) == 0
        assert still_alive(started, GONE_S) == []
        assert working_in(tmp_path) == []
        assert not ray_dir.exists()
    assert server.output.splitlines()[-1] == "moss: stopped"
    assert all(line.startswith("moss: ") for line in server.output.splitlines())
    assert chat["uid"] not in server.output


def test_a_sigkill_leaves_no_process_and_keeps_the_chats(tmp_path: Path) -> None:
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
        assert server.process.wait(STOP_TIMEOUT_S) in (0, 130)  # 0: it had already stopped
        assert still_alive(started, 10) == []
        assert working_in(tmp_path) == []


def test_ctrl_c_during_startup(tmp_path: Path) -> None:
    server = MossProcess(tmp_path)
    server.launch()
    server.wait_for("starting Ray")
    seen: set[psutil.Process] = set()
    while len(seen) < 5:  # the guard, the store and the first of Ray's
        assert server.process.poll() is None, server.output
        seen |= set(server.descendants())
    server.press_ctrl_c()
    assert server.process.wait(STOP_TIMEOUT_S) == 0
    assert still_alive(list(seen), WATCH_S + GONE_S) == []
    assert "Traceback" not in server.output


def test_a_model_that_does_not_load_is_a_one_line_error(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "model")
    (model / "model-00002-of-00002.safetensors").unlink()
    server = MossProcess(tmp_path, model=model)
    server.launch()
    assert server.process.wait(300) == 1
    *progress, last = server.output.splitlines()
    assert "loading model" in progress[-1] or "still loading" in progress[-1]
    assert "model-00002-of-00002.safetensors" in last
    assert last.startswith("moss: ")
