"""Clients that never try again, while a server is updated: each request is answered, and each reply
whole."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx

from tests.proof.history.run import NO_LIMIT
from tests.proof.rolling.redeploy import DONE
from tests.proof.server import ADMIN, DigestProcess

UPDATE_S = 240.0
POLL_S = 0.1
BETWEEN_S = 3.0
REQUEST_S = 180.0
OK = "whole"


@dataclass
class Clients:
    """`outcomes` counts requests by what came of them: OK, or what was wrong."""

    server: DigestProcess
    outcomes: Counter[str] = field(default_factory=Counter)
    longest_s: float = 0.0
    is_over: bool = False

    async def run(self, number: int) -> None:
        """One client with a chat of its own, until it `is_over`."""
        headers = {"Authorization": f"Bearer {self.server.api_keys['ann']}"}
        async with httpx.AsyncClient(
            base_url=self.server.url,
            headers=headers,
            limits=NO_LIMIT,
            timeout=REQUEST_S,
            trust_env=False,
        ) as http:
            uid = (await http.post("/v1/sessions", json={})).json()["id"]
            while not self.is_over:
                for ask in (self._turn, self._stream, self._answer):
                    began = time.monotonic()
                    try:
                        outcome = await ask(http, uid, number)
                    except httpx.HTTPError as error:
                        outcome = f"{ask.__name__}: {type(error).__name__}"
                    self.longest_s = max(self.longest_s, time.monotonic() - began)
                    self.outcomes[outcome] += 1

    async def _turn(self, http: httpx.AsyncClient, uid: str, number: int) -> str:
        """A turn of a session."""
        body = {"user": f"turn of {number}", "stream": True}
        path = f"/v1/sessions/{uid}/turns"
        async with http.stream("POST", path, json=body) as response:
            kinds = [line async for line in _lines(response, "event: ")]
        return _outcome(response, "turn", bool(kinds) and kinds[-1] == "done")

    async def _stream(self, http: httpx.AsyncClient, uid: str, number: int) -> str:
        """A completion of OpenAI's, as a stream."""
        body = {"messages": [{"role": "user", "content": f"stream of {number}"}], "stream": True}
        async with http.stream("POST", "/v1/chat/completions", json=body) as response:
            data = [line async for line in _lines(response, "data: ")]
        reasons = [json.loads(d)["choices"][0].get("finish_reason") for d in data[-2:-1] if d]
        return _outcome(response, "stream", data[-1:] == ["[DONE]"] and reasons == ["stop"])

    async def _answer(self, http: httpx.AsyncClient, uid: str, number: int) -> str:
        """MOSS's demo, without a stream."""
        response = await http.post("/", json={"prompt": f"answer to {number}"})
        is_whole = response.status_code == 200 and response.json()["status"] == 200
        return _outcome(response, "answer", is_whole)


async def _lines(response: httpx.Response, prefix: str) -> AsyncIterator[str]:
    async for line in response.aiter_lines():
        if line.startswith(prefix):
            yield line.removeprefix(prefix)


def _outcome(response: httpx.Response, name: str, is_whole: bool) -> str:
    if response.status_code != 200:
        return f"{name}: {response.status_code}"
    return OK if is_whole else f"{name}: cut"


async def update(server: DigestProcess, name: str) -> float:
    """Has the server serve its model under `name`; returns how long it took when that is done."""
    began = time.monotonic()
    await asyncio.to_thread(_write, server, name)
    async with asyncio.timeout(UPDATE_S):
        while _last_line(server) != DONE:
            await asyncio.sleep(POLL_S)
    return time.monotonic() - began


def _write(server: DigestProcess, name: str) -> None:
    with server.updates.open("a") as file:
        file.write(f"{name}\n")


def _last_line(server: DigestProcess) -> str:
    return server.updates.read_text("utf-8").split()[-1]


async def roll(server: DigestProcess, num_updates: int, num_clients: int) -> tuple[Clients, str]:
    """Updates the server that often under load; returns what clients saw, and that in words."""
    clients = Clients(server)
    took: list[float] = []
    async with asyncio.TaskGroup() as group:
        for number in range(num_clients):
            group.create_task(clients.run(number))
        for number in range(num_updates):
            await asyncio.sleep(BETWEEN_S)
            took.append(await update(server, f"moss-{number}"))
            assert await asyncio.to_thread(_model_name, server) == f"moss-{number}"
        clients.is_over = True
    faults = {outcome: n for outcome, n in clients.outcomes.items() if outcome != OK}
    what = f" ({faults})" if faults else ""
    text = (
        f"{num_updates} updates of all replicas, {max(took):.0f} s at most: {sum(faults.values())}"
        f" of {clients.outcomes.total()} requests failed or were cut{what};"
        f" the longest took {clients.longest_s:.1f} s"
    )
    return clients, text


def _model_name(server: DigestProcess) -> str:
    headers = {"Authorization": f"Bearer {server.api_keys[ADMIN]}"}
    models = httpx.get(f"{server.url}/v1/models", headers=headers, timeout=30).json()["data"]
    return str(models[0]["id"])
