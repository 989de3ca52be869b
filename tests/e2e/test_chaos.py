"""Two minutes of chats while processes are killed at random: no answered turn is ever lost.

`make chaos` runs it. Each client keeps the history in its last answer; every later answer must
begin with that history, unchanged. A turn whose answer was lost may be stored or not.
"""

import random
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.moss_process import MossProcess

NUM_CLIENTS = 4
CHAOS_S = 120
KILL_EVERY_S = (4, 15)
RECOVERY_S = 180
# Expected errors while something restarts; any other status is a fault.
REFUSED = {503, 409, 500}
SEED = 0


class Chatter(threading.Thread):
    """A client that asks in one chat until it is stopped."""

    def __init__(self, url: str, number: int, stop: threading.Event) -> None:
        super().__init__(name=f"client-{number}")
        self._url, self._stop_asking, self._number = url, stop, number
        self._random = random.Random(f"{SEED}/{number}")
        self._uid: str | None = None
        self._history: list[list[str]] = []
        self.num_answers = 0
        self.num_failures = 0
        self.faults: list[str] = []

    def run(self) -> None:
        while not self._stop_asking.is_set() and not self.faults:
            self.ask()
            time.sleep(self._random.random() / 2)

    def ask(self) -> None:
        """Asks once and checks the answer against the known history."""
        a, b = self._random.randint(1, 99), self._random.randint(1, 99)
        prompt = f"{self._number}: {a}+{b}=?"
        body = {"prompt": prompt, "uid": self._uid, "temperature": 0.1}
        try:
            response = httpx.post(self._url, json=body, timeout=RECOVERY_S)
        except httpx.TransportError:
            self.num_failures += 1
            return
        if response.status_code != 200:
            self.num_failures += 1
            if response.status_code not in REFUSED:
                self.faults.append(f"{response.status_code}: {response.text}")
            return
        self._check(prompt, response.json())

    def _check(self, prompt: str, answer: dict[str, object]) -> None:
        history = answer["history"]
        assert isinstance(history, list)
        if self._uid is not None and answer["uid"] != self._uid:
            self.faults.append(f"{self._uid} was forgotten")
        elif history[: len(self._history)] != self._history:
            self.faults.append(f"{self._history} became {history}")
        elif history[-1][0] != prompt:
            self.faults.append(f"{prompt} was answered with {history[-1]}")
        self._uid, self._history = str(answer["uid"]), history
        self.num_answers += 1


def kill_one(server: MossProcess, choice: random.Random) -> str:
    """Sends SIGKILL to the store or to a rank (rank 0 is the replica); returns which."""
    if choice.random() < 0.3:
        stores = [p for p in server.descendants() if "valkey" in p.name()]
        stores[0].kill()
        return "store"
    rank = choice.randrange(2)
    try:
        psutil.Process(server.stats()["rank_pids"][rank]).kill()
    except (httpx.HTTPError, ValueError, KeyError, psutil.NoSuchProcess):
        return "nothing: the group is restarting"
    return f"rank {rank}"


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_killed_processes_lose_no_turn(tmp_path: Path) -> None:
    choice, stop = random.Random(SEED), threading.Event()
    killed: list[str] = []
    with MossProcess(tmp_path) as server:
        clients = [Chatter(server.url, number, stop) for number in range(NUM_CLIENTS)]
        for client in clients:
            client.start()
        ends_at = time.monotonic() + CHAOS_S
        while time.monotonic() < ends_at:
            time.sleep(choice.uniform(*KILL_EVERY_S))
            killed.append(kill_one(server, choice))
        stop.set()
        for client in clients:
            client.join()
        for client in clients:  # one more turn without kills shows the whole history
            before = client.num_answers
            client.ask()
            assert client.num_answers == before + 1, (killed, client.faults)
    assert [client.faults for client in clients] == [[]] * NUM_CLIENTS, killed
    assert {"store", "rank 0", "rank 1"} <= set(killed)
    assert all(client.num_answers > 5 for client in clients), killed
    print(killed, [(client.num_answers, client.num_failures) for client in clients])
