"""A whole history: clients of two tenants at work, then all that is stored, then the checker."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from redis.asyncio import Redis

from serve_app.prompt.exchange import Exchange
from serve_app.sessions.keys import session_keys
from serve_app.sessions.packing import unpack_session
from serve_app.sessions.scripts import LOAD
from tests.proof.history.asking import TENANTS, AgainError, Asker, pause
from tests.proof.history.checker import Final, faults_of, faults_of_replies, told_faults
from tests.proof.history.client import WEIGHTS, Client
from tests.proof.history.record import Record, canary_of
from tests.proof.plugins import received

NO_LIMIT = httpx.Limits(max_connections=None, max_keepalive_connections=0)


@dataclass
class Site:
    """A running server: how to reach one of its ingresses, its keys by tenant, its store, and where
    its plugins write."""

    url: Callable[[], str]
    api_keys: Mapping[str, str]
    store: str
    effects: Path


@dataclass
class History:
    """The clients of one run. Enter it, `work`, and then `check` when everything works again."""

    site: Site
    num_clients: int
    seed: str = "0"
    patience_s: float = 30
    weights: Mapping[str, int] = field(default_factory=lambda: WEIGHTS)
    record: Record = field(default_factory=Record)
    codes: Counter[str] = field(default_factory=Counter)

    async def __aenter__(self) -> "History":
        self._http = httpx.AsyncClient(limits=NO_LIMIT, trust_env=False)
        self._clients = [self._client(number) for number in range(self.num_clients)]
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._http.aclose()

    async def work(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        await asyncio.gather(*(client.run(until) for client in self._clients))

    async def check(self) -> list[str]:
        """All faults. Nobody may kill anything meanwhile."""
        await asyncio.gather(*(client.settle() for client in self._clients))
        finals = [await self._final(uid) for uid in [*self.record.owners]]
        effects = received(self.site.effects)
        found = faults_of(self.record, finals, effects)
        found += await faults_of_replies(finals)
        return found + await self._canaries_in_keys()

    def faults_so_far(self) -> list[str]:
        """What clients have seen; it asks nobody."""
        return told_faults(self.record)

    @property
    def num_acked(self) -> int:
        return sum(act.state == "acked" for act in self.record.acts)

    def __str__(self) -> str:
        kinds = Counter(f"{act.kind} {act.state}" for act in self.record.acts)
        return f"{dict(sorted(kinds.items()))} {dict(self.codes)}"

    def _client(self, number: int) -> Client:
        tenant = TENANTS[number % len(TENANTS)]
        site = self.site
        api_key, read_s = site.api_keys[tenant], min(30, self.patience_s)
        asker = Asker(self._http, site.url, tenant, api_key, self.record, self.codes, read_s)
        return Client(asker, number, self.seed, self.patience_s, self.weights)

    async def _final(self, uid: str) -> Final:
        tenant = self.record.owners[uid]
        client = self._client(TENANTS.index(tenant))
        found = await self._patiently(lambda: client.read(uid))
        if found is None:  # also one that nobody can read any more
            return Final(uid, None, {})
        stored = await self._stored(uid)
        turns = [{**t, "make_up": stored[t["id"]].make_up} for t in found["tree"]]
        return Final(uid, turns, stored)

    async def _stored(self, uid: str) -> dict[str, Any]:
        async with Redis.from_url(self.site.store) as redis:
            owner: Any = await redis.hget(session_keys(uid, "meta")[0], "owner")
            keys = session_keys(uid, "meta", "turns", "feedback")
            session = unpack_session(uid, owner.decode(), await LOAD.run(redis, keys, owner))
        turns: dict[str, Exchange] = {turn.id: turn for turn in session.tree}
        return turns

    async def _canaries_in_keys(self) -> list[str]:
        async with Redis.from_url(self.site.store) as redis:
            names = [key.decode() async for key in redis.scan_iter(count=1000)]
        return [
            f"G5 a canary in the key {name}"
            for name in names
            if any(canary_of(tenant) in name for tenant in TENANTS)
        ]

    async def _patiently(self, read: Callable[[], Any]) -> Any:
        until = time.monotonic() + self.patience_s
        while True:
            try:
                return await read()
            except AgainError as error:
                if time.monotonic() > until:
                    return None
                await pause(error.after_s)
