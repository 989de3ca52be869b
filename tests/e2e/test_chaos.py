"""Chats while processes are killed at random: no answered turn is lost, doubled or changed.

`make chaos` runs it. Each turn has an Idempotency-Key and up to three tries, as a patient client's
would; afterwards one more turn without kills shows the whole history.
"""

import random
import threading
import time
from itertools import cycle
from pathlib import Path
from uuid import uuid4

import httpx
import psutil
import pytest

from tests.e2e.components import processes_of
from tests.e2e.history import ChatRecord
from tests.e2e.moss_process import MossProcess

NUM_CLIENTS, NUM_TURNS, NUM_TRIES = 8, 45, 3
KILL_EVERY_S = 15
MAX_PAUSE_S = 5  # between two turns of a client, so that its chat lives through many kills
RECOVERY_S = 180
PAUSES_S = (2, 5)  # at least, before the second and the third try
KILLED = ("store", "proxy", "controller", "ingress", "replica", "rank", "plugin")
# Expected while something restarts; any other status is a fault.
REFUSED = {409, 429, 500, 503}
SEED = 0


class Refused(Exception):
    """A try without an answer; the server may have said when to try again."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(retry_after_s)
        self.retry_after_s = retry_after_s


class Chatter(threading.Thread):
    """A client that has one chat."""

    def __init__(self, url: str, number: int) -> None:
        super().__init__(name=f"client-{number}")
        self._url, self._number = url, number
        self._random = random.Random(f"{SEED}/{number}")
        self._uid: str | None = None
        self._record = ChatRecord()
        self.num_acked = self.num_first = 0
        self.faults: list[str] = []

    def run(self) -> None:
        for turn in range(NUM_TURNS):
            self.take_turn(turn)
            time.sleep(self._random.uniform(0, MAX_PAUSE_S))

    def take_turn(self, turn: int) -> None:
        """Asks, up to NUM_TRIES times, and checks what was answered."""
        a, b = self._random.randint(1, 99), self._random.randint(1, 99)
        prompt, key = f"{self._number}.{turn}: {a}+{b}=?", str(uuid4())
        self._record.sent.add(prompt)
        for attempt in range(NUM_TRIES):
            try:
                self._check(prompt, self._ask(prompt, key))
            except Refused as refused:
                if attempt < NUM_TRIES - 1:
                    time.sleep(max(PAUSES_S[attempt], refused.retry_after_s))
            else:
                self.num_acked += 1
                self.num_first += attempt == 0
                return

    def _ask(self, prompt: str, key: str) -> dict[str, object]:
        body = {"prompt": prompt, "uid": self._uid, "temperature": 0.1}
        headers = {"Idempotency-Key": key}
        try:
            response = httpx.post(self._url, json=body, headers=headers, timeout=RECOVERY_S)
        except httpx.TransportError:
            raise Refused(0) from None
        if response.status_code != 200:
            is_typed = response.headers.get("content-type") == "application/json"
            if response.status_code not in REFUSED or not is_typed:
                self.faults.append(f"{response.status_code}: {response.text}")
            raise Refused(float(response.headers.get("Retry-After", 0)))
        answer: dict[str, object] = response.json()
        return answer

    def _check(self, prompt: str, answer: dict[str, object]) -> None:
        history = answer["history"]
        assert isinstance(history, list)
        if self._uid not in (None, answer["uid"]):
            self.faults.append(f"{self._uid} was forgotten")
        self._uid = str(answer["uid"])
        self.faults += self._record.ack(prompt, history)


def kill_one(server: MossProcess, component: str, choice: random.Random) -> str:
    """Sends SIGKILL to a process of `component`; returns which, or "nothing" if none runs now."""
    try:
        choice.choice(processes_of(server, component)).kill()
    except (IndexError, psutil.NoSuchProcess):
        return "nothing"
    return component


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_killed_processes_lose_no_turn(tmp_path: Path) -> None:
    choice = random.Random(SEED)
    order = cycle(choice.sample(KILLED, len(KILLED)))
    killed: list[str] = []
    with MossProcess(tmp_path) as server:
        clients = [Chatter(server.url, number) for number in range(NUM_CLIENTS)]
        for client in clients:
            client.start()
        while any(client.is_alive() for client in clients):
            time.sleep(KILL_EVERY_S)
            killed.append(kill_one(server, next(order), choice))
        time.sleep(KILL_EVERY_S)
        acked = sum(client.num_acked for client in clients)
        first = sum(client.num_first for client in clients)
        for client in clients:  # one more turn without kills shows the whole history
            before = client.num_acked
            client.take_turn(NUM_TURNS)
            assert client.num_acked == before + 1, (killed, client.faults)
    print(f"killed {killed}; {acked} of {NUM_CLIENTS * NUM_TURNS} acked, {first} at the first try")
    assert [client.faults for client in clients] == [[]] * NUM_CLIENTS, killed
    assert acked >= 0.99 * NUM_CLIENTS * NUM_TURNS, killed
    assert set(killed) >= set(KILLED), killed
