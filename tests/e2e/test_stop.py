"""However `moss serve` ends, every reply ends too, and no process and no open port is left."""

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import httpx
import psutil
import pytest
import torch
from safetensors.torch import load_file

from serve_app.bench.load.server_process import STOP_TIMEOUT_S
from serve_app.cli.serve.guard import WATCH_S
from tests.e2e.endless_model import make_endless_model
from tests.e2e.moss_process import GONE_S, MossProcess
from tests.support.processes import listening_ports, ray_directory, still_alive, working_in
from tests.support.tiny_moss import make_checkpoint
from tests.support.waiting import wait_until

NUM_STREAMS = 20
LONG = 3500  # in tokens, which are bytes here: seconds, and nothing but a stop ends it earlier
SHORT = 1000


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_endless_model(tmp_path_factory.mktemp("model"))


def last_event(url: str, stream: bool, max_length: int) -> dict[str, Any]:
    """How a turn ended: its answer or its error, which may come before the stream begins."""
    body = {"prompt": "hi", "stream": stream, "max_length": max_length}
    response = httpx.post(url, json=body, timeout=600, trust_env=False)
    if response.headers["content-type"] == "application/json":
        last: dict[str, Any] = response.json()
        return last
    *_, line = (line for line in response.text.splitlines() if line.startswith("data: "))
    return cast(dict[str, Any], json.loads(line.removeprefix("data: ")))


def endings(server: MossProcess, max_length: int, number: int) -> list[dict[str, Any]]:
    """Starts many turns, presses Ctrl-C, and returns their ends when the server has stopped."""
    with ThreadPoolExecutor(NUM_STREAMS) as pool:
        turns = [
            pool.submit(last_event, server.url, turn % 4 != 0, max_length)
            for turn in range(NUM_STREAMS)
        ]
        assert wait_until(lambda: server.stats()["running"] > NUM_STREAMS // 2, 60)
        started = server.descendants()
        ray_dir = ray_directory(started)
        if number == signal.SIGINT:
            server.press_ctrl_c()
        else:
            server.process.send_signal(number)
        ends = [turn.result() for turn in turns]
    assert server.process.wait(STOP_TIMEOUT_S) == 0
    assert still_alive(started, GONE_S) == []
    assert not ray_dir.exists()
    assert server.output.splitlines()[-1] == "moss: stopped"
    assert all(line.startswith("moss: ") for line in server.output.splitlines())
    return ends


def test_ctrl_c_lets_running_replies_end(tmp_path: Path, endless: Path) -> None:
    flags = ("--tp", "1", "--dtype", "float32", "--drain", "600")
    with MossProcess(tmp_path, *flags, model=endless) as server:
        chat = server.ask("hi", max_length=600)
        assert server.port in listening_ports(server.descendants())
        ends = endings(server, SHORT, signal.SIGINT)
    assert [end.get("status") for end in ends] == [200] * NUM_STREAMS, ends
    assert working_in(tmp_path) == []
    assert chat["uid"] not in server.output


def test_sigterm_ends_replies_that_outlast_the_drain_with_a_typed_event(
    tmp_path: Path, endless: Path
) -> None:
    flags = ("--tp", "1", "--dtype", "float32", "--drain", "0.5")
    with MossProcess(tmp_path, *flags, model=endless) as server:
        ends = endings(server, LONG, signal.SIGTERM)
    assert {end["error"]["code"] for end in ends} == {"draining"}
    assert "waiting for running replies" in server.output
    assert "at most 0.5 s" in server.output


def test_a_dead_ray_is_one_line(tmp_path: Path, endless: Path) -> None:
    with MossProcess(tmp_path, "--tp", "1", model=endless) as server:
        started = server.descendants()
        (control_store,) = [process for process in started if process.name() == "gcs_server"]
        control_store.kill()
        assert server.process.wait(STOP_TIMEOUT_S) == 1
        assert still_alive(started, 3 * GONE_S) == []
    last = server.output.splitlines()[-1]
    assert last == "moss: Ray has died (gcs_server is gone), and the server with it"


def test_a_sigkill_leaves_no_process_and_keeps_the_chats(tmp_path: Path) -> None:
    with MossProcess(tmp_path) as server:
        chat = server.ask("你好")
        started = server.descendants()
        left = ray_directory(started)
        server.stop(signal.SIGKILL)
        assert still_alive(started, 30) == []
    with MossProcess(tmp_path) as server:
        assert not left.exists()
        again = server.ask("你是谁？", uid=chat["uid"])
        assert again["history"][0] == chat["history"][0]
        started = server.descendants()
        server.press_ctrl_c()
        server.wait_for("stopping")
        server.press_ctrl_c()
        assert server.process.wait(STOP_TIMEOUT_S) in (0, 130)  # 0: it had already stopped
        assert still_alive(started, 10) == []
        assert working_in(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (signal.SIGINT, "starting the session store"),
        (signal.SIGTERM, "starting Ray"),
        (signal.SIGINT, "starting Ray"),
        (signal.SIGINT, "loading"),
    ],
)
def test_a_signal_during_startup(tmp_path: Path, number: signal.Signals, moment: str) -> None:
    server = MossProcess(tmp_path)
    server.launch()
    server.wait_for(moment)
    seen: set[psutil.Process] = set()
    while len(seen) < (5 if "Ray" in moment else 1):  # the guard, the store, the first of Ray's
        assert server.process.poll() is None, server.output
        seen |= set(server.descendants())
    if number == signal.SIGINT:
        server.press_ctrl_c()
    else:
        server.process.send_signal(number)
    assert server.process.wait(STOP_TIMEOUT_S) == 0, server.output
    assert still_alive(list(seen), WATCH_S + GONE_S) == []
    assert server.output.splitlines()[-1] == "moss: stopped"
    assert "Traceback" not in server.output


def test_a_model_that_does_not_load_is_a_one_line_error(tmp_path: Path) -> None:
    """Files with headers are checked before anything starts; these have none."""
    model = make_checkpoint(tmp_path / "model")
    tensors: dict[str, torch.Tensor] = {}
    for file in model.glob("*.safetensors"):
        tensors |= load_file(file)
        file.unlink()
    (model / "model.safetensors.index.json").unlink()
    del tensors["lm_head.bias"]
    torch.save(tensors, model / "pytorch_model.bin")
    server = MossProcess(tmp_path, model=model)
    server.launch()
    assert server.process.wait(300) == 1
    *progress, last = server.output.splitlines()
    assert "loading model" in progress[-1] or "still loading" in progress[-1]
    assert "lm_head.bias" in last
    assert last.startswith("moss: ")
