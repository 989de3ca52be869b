"""However `moss serve` ends, every reply ends too, and no process and no open port is left."""

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import httpx
import psutil
import pytest
import torch
from safetensors.torch import load_file

from serve_app.bench.load.server_process import STOP_TIMEOUT_S
from serve_app.cli.serve.guard import WATCH_S
from tests.e2e.components import processes_of
from tests.e2e.endless_model import make_endless_model
from tests.e2e.moss_process import GONE_S, MossProcess
from tests.support.processes import listening_ports, ray_directory, still_alive, working_in
from tests.support.tiny_moss import make_checkpoint
from tests.support.waiting import wait_until

NUM_UNARY, NUM_STREAMS = 5, 15
# In tokens, which are bytes here: seconds, and nothing but a stop ends it earlier.
LONG = 3500
SHORT = 1500
# A plain dialogue has no thoughts: a stream begins with the first token.
FLAGS = ("--tp", "1", "--dtype", "float32", "--dialogue", "plain")
BEGIN_S = 120  # for all turns to run, on a busy machine


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_endless_model(tmp_path_factory.mktemp("model"))


class Turns:
    """Many long turns, all of which the server runs when the block begins."""

    def __init__(self, server: MossProcess, max_length: int) -> None:
        self._server = server
        self._body = {"prompt": "hi", "max_length": max_length}
        self._begun: list[str] = []
        self._pool = ThreadPoolExecutor(NUM_UNARY + NUM_STREAMS)

    def __enter__(self) -> Self:
        self._ends = [self._pool.submit(self._unary) for _ in range(NUM_UNARY)]
        assert wait_until(self._has_unary, BEGIN_S), self._server.stats()
        self._ends += [self._pool.submit(self._stream) for _ in range(NUM_STREAMS)]
        assert wait_until(lambda: len(self._begun) == NUM_STREAMS, BEGIN_S), self._begun
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown()

    def ends(self) -> list[dict[str, Any]]:
        """The answer or the error of each."""
        return [end.result() for end in self._ends]

    def _has_unary(self) -> bool:
        stats = self._server.stats()
        return bool(stats["running"] + stats["waiting"] == NUM_UNARY)

    def _unary(self) -> Any:
        return httpx.post(self._server.url, json=self._body, timeout=600, trust_env=False).json()

    def _stream(self) -> Any:
        body = {**self._body, "stream": True}
        with httpx.stream(
            "POST", self._server.url, json=body, timeout=600, trust_env=False
        ) as response:
            lines = response.iter_lines()
            first = next(lines)  # a delta or a ping
            self._begun.append(first)
            *_, last = (line for line in (first, *lines) if line.startswith("data: "))
        return json.loads(last.removeprefix("data: "))


def endings(server: MossProcess, max_length: int, number: int) -> list[dict[str, Any]]:
    """How many running turns end when the server gets the signal, and what is left of it."""
    with Turns(server, max_length) as turns:
        started = server.descendants()
        ray_dir = ray_directory(started)
        if number == signal.SIGINT:
            server.press_ctrl_c()
        else:
            server.process.send_signal(number)
        ends = turns.ends()
    assert server.process.wait(STOP_TIMEOUT_S) == 0
    assert still_alive(started, GONE_S) == []
    assert not ray_dir.exists()
    assert server.output.splitlines()[-1] == "moss: stopped"
    assert all(line.startswith("moss: ") for line in server.output.splitlines())
    assert "waiting for running replies" in server.output
    assert "Traceback" not in server.log.read_text("utf-8")  # an error in a stop is only logged
    return ends


def test_ctrl_c_lets_running_replies_end(tmp_path: Path, endless: Path) -> None:
    flags = (*FLAGS, "--drain", "600")
    with MossProcess(tmp_path, *flags, model=endless) as server:
        chat = server.ask("hi", max_length=600)
        assert server.port in listening_ports(server.descendants())
        ends = endings(server, SHORT, signal.SIGINT)
    assert [end.get("status") for end in ends] == [200] * (NUM_UNARY + NUM_STREAMS), ends
    assert working_in(tmp_path) == []
    assert chat["uid"] not in server.output


def test_sigterm_ends_replies_that_outlast_the_drain_with_a_typed_event(
    tmp_path: Path, endless: Path
) -> None:
    flags = (*FLAGS, "--drain", "0.5")
    with MossProcess(tmp_path, *flags, model=endless) as server:
        ends = endings(server, LONG, signal.SIGTERM)
    codes = [end.get("error", {}).get("code") for end in ends]
    assert codes == ["draining"] * (NUM_UNARY + NUM_STREAMS), codes
    assert "at most 0.5 s" in server.output


def kill_ray(server: MossProcess) -> None:
    """The server ends with one line about it."""
    (control_store,) = processes_of(server, "gcs")
    control_store.kill()
    assert server.process.wait(STOP_TIMEOUT_S) == 1
    last = server.output.splitlines()[-1]
    assert last == "moss: Ray has died (gcs_server is gone), and the server with it"


def test_neither_a_sigkill_nor_a_dead_ray_leaves_a_process(tmp_path: Path) -> None:
    """And the chats stay."""
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
        kill_ray(server)
        assert still_alive(started, 3 * GONE_S) == []
        assert working_in(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (signal.SIGINT, "starting Ray"),
        (signal.SIGTERM, "loading"),
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
