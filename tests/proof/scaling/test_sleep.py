"""A server that has no replica while nobody asks, by choice: the first request waits for one."""

import time
from pathlib import Path

import httpx
import pytest

from tests.e2e.components import processes_of
from tests.proof.server import digest_server
from tests.support.waiting import wait_until

PATIENCE_S = 60


@pytest.mark.timeout(240)
def test_a_model_sleeps_until_the_next_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = "--replicas", "0..2", "--scale-down-after", "2"
    with digest_server(tmp_path, monkeypatch, *flags) as server:
        assert wait_until(lambda: not processes_of(server, "replica"), PATIENCE_S)
        for _ in range(10):
            health = httpx.get(f"{server.url}/health", timeout=30)
            assert httpx.get(f"{server.url}/readyz", timeout=30).status_code == 200
            assert server.stats() == {"replicas": []}
            time.sleep(0.5)
        assert health.status_code == 200 and health.json()["groups"][0]["state"] == "asleep"
        assert not processes_of(server, "replica"), "a question has woken it"
        headers = {"Authorization": f"Bearer {server.api_keys['ann']}"}
        body = {"messages": [{"role": "user", "content": "你好"}]}
        url = f"{server.url}/v1/chat/completions"
        response = httpx.post(url, json=body, headers=headers, timeout=PATIENCE_S)
        assert response.status_code == 200, response.text
