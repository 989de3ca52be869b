"""One `moss serve` with real clients: the API, sessions, plugins and streaming."""

import json
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from serve_app.bench.load.server_process import STOP_TIMEOUT_S
from tests.e2e.moss_process import GONE_S, MossProcess
from tests.support.moss_command import run_moss
from tests.support.processes import listening_ports, still_alive

ANSWER_START = "\n<|MOSS|>: "


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MossProcess]:
    with MossProcess(tmp_path_factory.mktemp("serve"), "--dashboard") as server:
        yield server


def test_the_terminal_shows_progress_and_nothing_else(server: MossProcess) -> None:
    lines = server.output.splitlines()
    assert all(line.startswith("moss: ") for line in lines), server.output
    assert "starting the session store" in lines[0]
    assert "starting Ray" in lines[1]
    assert "Ray's dashboard" in lines[2]
    assert "loading moss_nano on 2 tensor-parallel ranks" in lines[3]
    assert f"curl -X POST http://localhost:{server.port}" in lines[-1]


def test_the_printed_curl_command_works(server: MossProcess) -> None:
    curl = server.output.splitlines()[-1].partition("try: ")[2]
    shown = subprocess.run(
        ["bash", "-c", f"{curl} --silent"], capture_output=True, timeout=120, check=True
    )
    answer = json.loads(shown.stdout)
    assert answer["status"] == 200
    assert answer["response"].startswith(ANSWER_START)
    assert len(answer["response"]) > len(ANSWER_START)
    assert answer["history"] == [["你是谁？", answer["response"]]]


def test_ranks_are_separate_processes(server: MossProcess) -> None:
    ranks = server.stats()["rank_pids"]
    assert len(set(ranks)) == 2
    assert set(ranks) <= {process.pid for process in server.descendants()}


def test_the_dashboard_opens_with_its_token_only(server: MossProcess) -> None:
    """That nothing of it leaves loopback is tested below, with all other ports."""
    found = re.search(r"dashboard: (http://127\.0\.0\.1:\d+) .* token in (\S+)\)", server.output)
    assert found is not None, server.output
    url, token_file = found[1], Path(found[2])
    assert httpx.get(url).text.startswith("<!doctype html>")
    assert token_file.stat().st_mode & 0o077 == 0
    token = {"Authorization": f"Bearer {token_file.read_text()}"}
    jobs = f"{url}/api/jobs/"
    assert [httpx.get(jobs, headers=headers).status_code for headers in ({}, token)] == [401, 200]


def test_only_authenticated_ports_leave_loopback(server: MossProcess) -> None:
    """HTTP and Ray listen on loopback. Serve's gRPC, which requires Ray's token, cannot be bound
    to an address."""
    ports = listening_ports([*server.descendants()])
    assert ports[server.port] == "127.0.0.1"
    serve_replicas = [p for p in server.descendants() if "ServeReplica" in " ".join(p.cmdline())]
    outside = {port for port, ip in ports.items() if ip not in ("127.0.0.1", "::ffff:127.0.0.1")}
    assert outside <= set(listening_ports(serve_replicas))


def test_a_uid_continues_its_chat(server: MossProcess) -> None:
    first = server.ask("你好")
    second = server.ask("你是谁？", uid=first["uid"])
    assert second["uid"] == first["uid"]
    assert second["history"] == [*first["history"], ["你是谁？", second["response"]]]


def test_an_unknown_uid_starts_a_new_chat(server: MossProcess) -> None:
    claimed = "0" * 32
    answer = server.ask("你好", uid=claimed)
    assert answer["uid"] != claimed
    assert len(answer["history"]) == 1


def test_a_stream_adds_up_to_the_answer(server: MossProcess) -> None:
    body = {"prompt": "Hello, who are you?", "stream": True}
    with httpx.stream("POST", server.url, json=body, timeout=120) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        events = [json.loads(line[6:]) for line in response.iter_lines() if line]
    *deltas, answer = events
    assert len(deltas) > 1
    assert answer["response"] == ANSWER_START + "".join(delta["delta"] for delta in deltas)
    again = server.ask("And what can you do?", uid=answer["uid"])
    assert again["history"][0] == ["Hello, who are you?", answer["response"]]


def test_the_calculator_provides_the_value(server: MossProcess) -> None:
    """The answer shows neither thoughts nor commands; the same question without the plugin proves
    where the number came from."""
    answer = server.ask("计算 12*34", temperature=0)
    assert "408" in answer["response"]
    without = server.ask("计算 12*34", temperature=0, plugins=[])
    assert "408" not in without["response"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"prompt": ', 400, "invalid_value"),
        (b'{"prompt": 5}', 400, "invalid_value"),
        (b'{"prompt": "x", "temperature": NaN}', 400, "invalid_value"),
        (b'{"prompt": "x", "plugins": ["compiler"]}', 400, "invalid_value"),
        (b'{"prompt": "x", "model": "gpt-4"}', 404, "model_not_found"),
        (json.dumps({"prompt": "长" * 5000}).encode(), 400, "context_length_exceeded"),
        (json.dumps({"prompt": "x" * 300_000}).encode(), 413, None),
    ],
)
def test_bad_input_is_a_client_error(
    server: MossProcess, body: bytes, status: int, code: str | None
) -> None:
    response = httpx.post(server.url, content=body, timeout=60)
    assert response.status_code == status
    assert response.json()["error"]["code"] == code
    assert response.json()["error"]["message"]


def test_concurrent_chats_are_separate(server: MossProcess) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(server.ask, [f"我叫小{n}。" for n in "明红刚丽华军芳强"]))
    assert len({answer["uid"] for answer in answers}) == 8
    assert all(len(answer["history"]) == 1 for answer in answers)
    server.wait_idle()


def test_health_endpoints(server: MossProcess) -> None:
    for path in ("health", "livez", "readyz"):
        assert httpx.get(f"{server.url}/{path}", timeout=30).status_code == 200
    assert httpx.get(f"{server.url}/version", timeout=30).json()["model"] == "moss_nano"
    missing = httpx.get(f"{server.url}/nothing", timeout=30)
    assert (missing.status_code, missing.json()["error"]["type"]) == (404, "invalid_request_error")
    assert len(missing.headers.get_list("X-Request-Id")) == 1


def test_other_pages_and_other_names_are_refused(server: MossProcess) -> None:
    for headers in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}):
        refused = httpx.get(f"{server.url}/v1/models", headers=headers, timeout=30)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "foreign_origin")


def test_moss_chat_talks_to_the_server(server: MossProcess) -> None:
    lines = "你好\nclear\nHello\nstop\nnever sent\n"
    shown = run_moss("chat", "--url", server.url, stdin=lines)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.count("<|MOSS|>: ") == 2
    assert "(a new chat)" in shown.stdout


def test_a_second_server_on_the_port_is_refused(server: MossProcess, tmp_path: Path) -> None:
    second = run_moss("serve", "--port", str(server.port), directory=tmp_path)
    assert second.returncode == 1
    assert second.stderr.startswith(f"moss: port {server.port} of 127.0.0.1 is in use")
    assert second.stderr.count("\n") == 1
    assert not (tmp_path / ".moss").exists()


def test_a_second_ctrl_c_ends_it_and_leaves_nothing(server: MossProcess) -> None:
    """The last test here: the server is gone."""
    started = server.descendants()
    server.press_ctrl_c()
    server.wait_for("stopping")
    server.press_ctrl_c()
    assert server.process.wait(STOP_TIMEOUT_S) in (0, 130)  # 0: it had already stopped
    assert still_alive(started, 2 * GONE_S) == []
