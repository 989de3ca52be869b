"""`moss chat` while its server is killed in the middle of a reply: the answer goes on, once.

`make proof` runs it.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE

import httpx
import psutil
import pytest

from serve_app.bench.load.server_process import READY
from tests.e2e.components import processes_of
from tests.e2e.endless_model import make_endless_model
from tests.e2e.moss_process import MossProcess
from tests.support.waiting import wait_until

NUM_TOKENS = 9000
NUM_SHOWN = 1000  # characters, of several thousand
COMMAND = (sys.executable, "-m", "serve_app.cli.main", "chat")
LIMIT_S = 280  # a turn's deadline is 300 s


def kill_ingresses(server: MossProcess) -> None:
    for process in processes_of(server, "ingress"):
        process.kill()


def kill_everything(server: MossProcess) -> None:
    """And starts the server again, on the same port and the same data."""
    for process in [psutil.Process(server.process.pid), *server.descendants()]:
        with suppress(psutil.Error):
            process.send_signal(signal.SIGKILL)
    server.process.wait()
    server.launch()
    server.wait_for(READY)


def read_all(descriptor: int, shown: bytearray) -> None:
    while chunk := os.read(descriptor, 65536):
        shown += chunk


def reply_in(shown: bytearray) -> str:
    """What came between the reply's label and the next prompt."""
    return shown.decode().partition("<|MOSS|>: ")[2].partition("<|Human|>: ")[0]


@pytest.mark.chaos
@pytest.mark.parametrize("kill", [kill_ingresses, kill_everything])
def test_an_answer_goes_on(tmp_path: Path, kill: Callable[[MossProcess], None]) -> None:
    model = make_endless_model(tmp_path / "model")
    with MossProcess(tmp_path, model=model) as server:
        sessions = f"{server.url}/v1/sessions"
        made = httpx.post(sessions, json={"defaults": {"max_tokens": NUM_TOKENS}}, timeout=30)
        uid = made.json()["id"]
        shown = bytearray()
        command = [*COMMAND, "--url", server.url, "--chat", uid]
        with subprocess.Popen(command, stdin=PIPE, stdout=PIPE) as chat:
            assert chat.stdin is not None and chat.stdout is not None
            reader = threading.Thread(target=read_all, args=(chat.stdout.fileno(), shown))
            chat.stdin.write(b"hi\n")
            chat.stdin.close()
            reader.start()
            assert wait_until(lambda: len(reply_in(shown)) > NUM_SHOWN, LIMIT_S)
            assert httpx.get(f"{sessions}/{uid}", timeout=30).json()["running_turn"]
            kill(server)
            assert chat.wait(LIMIT_S) == 0
            reader.join()
        (turn,) = httpx.get(f"{sessions}/{uid}", timeout=30).json()["turns"]
    assert turn["usage"]["completion_tokens"] >= NUM_TOKENS
    lines = reply_in(shown).splitlines()
    notes = [line for line in lines if line.startswith("(")]
    assert sum("waiting for the server" in line for line in notes) >= 1, notes
    assert "".join(line for line in lines if line not in notes) == turn["reply"]
