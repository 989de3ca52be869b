"""Replies that never end by themselves: clients disconnect, ranks die, the engine recovers."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator

import httpx
import psutil
import pytest
from redis import Redis

from serve_app.store.embedded import EmbeddedStore
from tests.e2e.endless_model import make_endless_model
from tests.e2e.moss_process import MossProcess
from tests.support.processes import still_alive
from tests.support.waiting import wait_until

RECOVERY_S = 120  # 6 s on an idle machine
# In tokens, which are bytes here. A prompt has about 450; thoughts get half of the rest.
SHORT = 600
LONG = 12_000  # seconds, also on a fast machine
FULL = 11_000  # a turn that is not aborted generates more tokens, half of them thoughts


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an external store, which is not durable."""
    with EmbeddedStore(tmp_path_factory.mktemp("store")) as store:
        with Redis.from_url(store.url) as raw:
            raw.config_set("appendonly", "no")
        yield store.url


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, store: str) -> Iterator[MossProcess]:
    model = make_endless_model(tmp_path_factory.mktemp("model"))
    directory = tmp_path_factory.mktemp("endless")
    with MossProcess(directory, "--store", store, "--allow-volatile-store", model=model) as server:
        yield server


def wait_healthy(server: MossProcess) -> None:
    assert wait_until(lambda: server.health() == 200, RECOVERY_S)


def test_an_external_store_is_used_and_its_durability_checked(
    server: MossProcess, store: str
) -> None:
    assert "keeps no append-only file" in server.output
    with Redis.from_url(store) as raw:
        before = raw.dbsize()
        server.ask("hi", max_length=SHORT)
        assert raw.dbsize() > before


def test_a_disconnect_while_streaming_frees_the_blocks(server: MossProcess) -> None:
    before = server.stats()["output_tokens"]
    with (
        httpx.Client(timeout=60) as client,
        client.stream(
            "POST", server.url, json={"prompt": "hi", "stream": True, "max_length": LONG}
        ) as response,
    ):
        next(response.iter_lines())  # the reply has begun; asking for more would take its time
    server.wait_idle()
    assert server.stats()["output_tokens"] - before < FULL


def test_a_disconnect_before_the_first_byte_aborts_the_turn(server: MossProcess) -> None:
    before = server.stats()["output_tokens"]
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(server.url, json={"prompt": "hi", "max_length": LONG}, timeout=0.3)
    server.wait_idle()
    assert server.stats()["output_tokens"] - before < FULL
    steps = server.stats()["steps"]
    time.sleep(0.5)
    assert server.stats()["steps"] == steps


def test_a_disconnect_does_not_change_other_replies(server: MossProcess) -> None:
    def ask() -> str:
        response: str = server.ask("hi", max_length=900, temperature=0.0)["response"]
        return response

    alone = ask()
    answers: list[str] = []
    other = threading.Thread(target=lambda: answers.append(ask()))
    other.start()
    for _ in range(3):
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(server.url, json={"prompt": "bye", "max_length": LONG}, timeout=0.3)
    other.join()
    assert answers == [alone]
    server.wait_idle()


@pytest.mark.parametrize("rank", [1, 0])
def test_a_killed_rank_ends_its_group_and_a_new_one_answers(server: MossProcess, rank: int) -> None:
    wait_healthy(server)
    chat = server.ask("hi", max_length=SHORT)
    group = [psutil.Process(pid) for pid in server.stats()["rank_pids"]]
    group[rank].kill()
    assert still_alive(group, 15) == []
    # A request that arrives meanwhile waits for the new group, and the chat is still there.
    again = server.ask("ho", timeout_s=RECOVERY_S, uid=chat["uid"], max_length=1200)
    assert again["history"][0] == chat["history"][0]
    wait_healthy(server)
    assert not set(server.stats()["rank_pids"]) & {process.pid for process in group}


def test_a_stream_whose_group_is_lost_goes_on_and_is_stored(server: MossProcess) -> None:
    wait_healthy(server)
    chat = server.ask("hi", max_length=SHORT)
    victim = server.stats()["rank_pids"][1]
    body = {"prompt": "go on", "uid": chat["uid"], "stream": True, "max_length": 2400}
    with httpx.stream("POST", server.url, json=body, timeout=RECOVERY_S) as response:
        events = (line for line in response.iter_lines() if line)
        assert next(events).startswith('data: {"delta": ')
        os.kill(victim, signal.SIGKILL)
        *_, last = events
    answer = json.loads(last.removeprefix("data: "))
    assert len(answer["response"]) > 400, "all that fits, not what came before the kill"
    after = server.ask("ho", timeout_s=RECOVERY_S, uid=chat["uid"], max_length=3600)
    assert [user for user, _ in after["history"]] == ["hi", "go on", "ho"]
    assert after["history"][1][1] == answer["response"]
