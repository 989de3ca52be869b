"""Replies that do not end by themselves: clients leave, ranks die, and the engine goes on."""

import os
import signal
import threading
import time
from collections.abc import Iterator

import httpx
import psutil
import pytest
from redis import Redis

from serve_app.sessions.embedded import EmbeddedStore
from tests.e2e.endless_model import make_endless_model
from tests.e2e.moss_process import MossProcess, still_alive
from tests.support.waiting import wait_until

RECOVERY_S = 120  # 6 s on an idle machine
# In tokens, which are bytes here. A prompt takes about 450; half of the rest goes to the thoughts.
SHORT = 600
LONG = 3000
WHOLE = 2000  # a reply that is not broken off is longer; its first half is thoughts


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a store that is somebody else's, and forgets when it dies."""
    with EmbeddedStore(tmp_path_factory.mktemp("store")) as store:
        with Redis.from_url(store.url) as raw:
            raw.config_set("appendonly", "no")
        yield store.url


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, store: str) -> Iterator[MossProcess]:
    model = make_endless_model(tmp_path_factory.mktemp("model"))
    directory = tmp_path_factory.mktemp("endless")
    with MossProcess(directory, "--store", store, model=model) as server:
        yield server


def wait_healthy(server: MossProcess) -> None:
    assert wait_until(lambda: server.health() == 200, RECOVERY_S)


def test_a_store_of_ones_own(server: MossProcess, store: str) -> None:
    assert "keeps no append-only file" in server.output
    with Redis.from_url(store) as raw:
        before = raw.dbsize()
        server.ask("hi", max_length=SHORT)
        assert raw.dbsize() > before


def test_a_client_that_leaves_gives_its_blocks_back(server: MossProcess) -> None:
    before = server.stats()["output_tokens"]
    with (
        httpx.Client(timeout=60) as client,
        client.stream(
            "POST", server.url, json={"prompt": "hi", "stream": True, "max_length": LONG}
        ) as response,
    ):
        lines = response.iter_lines()
        next(lines)
        assert server.stats()["running"] == 1
    server.wait_idle(timeout_s=5)
    assert server.stats()["output_tokens"] - before < WHOLE


def test_a_client_that_leaves_before_the_first_byte(server: MossProcess) -> None:
    before = server.stats()["output_tokens"]
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(server.url, json={"prompt": "hi", "max_length": LONG}, timeout=0.3)
    server.wait_idle(timeout_s=5)
    assert server.stats()["output_tokens"] - before < WHOLE
    steps = server.stats()["steps"]
    time.sleep(0.5)
    assert server.stats()["steps"] == steps


def test_one_that_leaves_takes_nothing_from_those_who_stay(server: MossProcess) -> None:
    def ask() -> str:
        response: str = server.ask("hi", max_length=900, temperature=0.0)["response"]
        return response

    alone = ask()
    answers: list[str] = []
    stayer = threading.Thread(target=lambda: answers.append(ask()))
    stayer.start()
    for _ in range(3):
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(server.url, json={"prompt": "bye", "max_length": LONG}, timeout=0.3)
    stayer.join()
    assert answers == [alone]
    server.wait_idle()


@pytest.mark.parametrize("rank", [1, 0])
def test_a_killed_rank_takes_its_group_along_and_a_new_one_answers(
    server: MossProcess, rank: int
) -> None:
    wait_healthy(server)
    chat = server.ask("hi", max_length=SHORT)
    group = [psutil.Process(pid) for pid in server.stats()["rank_pids"]]
    group[rank].kill()
    assert still_alive(group, 15) == []
    # A request that comes meanwhile waits for the new group; the chat has outlived the old one.
    again = server.ask("ho", timeout_s=RECOVERY_S, uid=chat["uid"], max_length=1200)
    assert again["history"][0] == chat["history"][0]
    wait_healthy(server)
    assert not set(server.stats()["rank_pids"]) & {process.pid for process in group}


def test_a_reply_that_is_cut_off_says_so_and_is_not_stored(server: MossProcess) -> None:
    wait_healthy(server)
    chat = server.ask("hi", max_length=SHORT)
    victim = server.stats()["rank_pids"][1]
    body = {"prompt": "go on", "uid": chat["uid"], "stream": True, "max_length": LONG}
    with httpx.stream("POST", server.url, json=body, timeout=RECOVERY_S) as response:
        events = (line for line in response.iter_lines() if line)
        assert next(events).startswith('data: {"delta": ')
        os.kill(victim, signal.SIGKILL)
        *_, last = events
    assert '"type": "server_error", "param": null, "code": "engine_error"' in last
    after = server.ask("ho", timeout_s=RECOVERY_S, uid=chat["uid"], max_length=1200)
    assert [user for user, _ in after["history"]] == ["hi", "ho"]
