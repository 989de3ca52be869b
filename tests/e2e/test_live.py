"""Live turns of a real server whose ingress is killed: its readers come back for the same bytes."""

import json
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from serve_app.client.sse import EventStreamReader, ServerSentEvent
from tests.e2e.components import processes_of
from tests.e2e.endless_model import make_endless_model
from tests.e2e.moss_process import MossProcess

NUM_READERS = 4  # they are spread over two ingresses by chance
TURN = {"user": "hi", "seed": 7, "max_completion_tokens": 8000, "stream": True}
PAUSE_S = 0.3
PATIENCE_S = 60


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MossProcess]:
    model = make_endless_model(tmp_path_factory.mktemp("model"))
    with MossProcess(tmp_path_factory.mktemp("live"), model=model) as server:
        yield server


class Reader(threading.Thread):
    """Starts a turn, and reads it to its end, however often its connection breaks."""

    def __init__(self, url: str) -> None:
        super().__init__()
        made = httpx.post(f"{url}/v1/sessions", json={}, timeout=PATIENCE_S)
        self._turns = f"{url}/v1/sessions/{made.json()['id']}/turns"
        self.events: list[ServerSentEvent] = []
        self.num_breaks = 0

    @property
    def has_ended(self) -> bool:
        return bool(self.events) and self.events[-1].type in ("done", "error")

    @property
    def num_deltas(self) -> int:
        return sum(event.type == "delta" for event in self.events)

    @property
    def text(self) -> str:
        deltas = [json.loads(e.data)["text"] for e in self.events if e.type == "delta"]
        return "".join(deltas)

    def run(self) -> None:
        self._read("POST", self._turns, json=TURN)
        give_up_at = time.monotonic() + PATIENCE_S
        while not self.has_ended and time.monotonic() < give_up_at:
            self.num_breaks += 1
            time.sleep(PAUSE_S)
            turn_id = json.loads(self.events[0].data)["id"]
            headers = {"Last-Event-ID": self.events[-1].last_id}
            self._read("GET", f"{self._turns}/{turn_id}/events", headers=headers)

    def _read(self, method: str, url: str, **options: Any) -> None:
        """Until the stream ends or breaks."""
        reader = EventStreamReader()
        try:
            with httpx.stream(method, url, timeout=PATIENCE_S, **options) as response:
                for chunk in response.iter_bytes() if response.status_code == 200 else ():
                    self.events += reader.feed(chunk)
        except httpx.TransportError:
            return


def test_a_killed_ingress_costs_its_readers_nothing(server: MossProcess) -> None:
    undisturbed = Reader(server.url)
    undisturbed.run()
    assert undisturbed.num_breaks == 0 and undisturbed.events[-1].type == "done"
    readers = [Reader(server.url) for _ in range(NUM_READERS)]
    for reader in readers:
        reader.start()
    while not all(reader.events for reader in readers) or max(r.num_deltas for r in readers) < 3:
        time.sleep(0.01)
    random.choice(processes_of(server, "ingress")).kill()
    assert not any(reader.has_ended for reader in readers), "it came too late"
    for reader in readers:
        reader.join(PATIENCE_S)
    assert sum(reader.num_breaks > 0 for reader in readers) > 0
    for reader in readers:
        assert [int(event.last_id) for event in reader.events] == [*range(len(reader.events))]
        assert reader.events[-1].type == "done", reader.events[-1]
        assert reader.text == undisturbed.text
