"""However `moss serve` ends, nothing of it is left: no process, no port, no temporary file."""

import signal
from pathlib import Path

import pytest

from tests.e2e.moss_process import MossProcess, listening_ports, still_alive


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything_in_order(tmp_path: Path, number: signal.Signals) -> None:
    with MossProcess(tmp_path) as server:
        chat = server.ask("你好")
        started = server.descendants()
        assert server.port in listening_ports(started)
        assert server.stop(number) == 0
        assert still_alive(started, 1) == []
        assert server.output.splitlines()[-1] == "moss: stopped"
        assert all(line.startswith("moss: ") for line in server.output.splitlines())
    assert (tmp_path / "data" / "store").is_dir()
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
