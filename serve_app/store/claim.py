"""Who may use a database of the store: one application, however many ingresses it has.

Two would take up each other's live turns, and mix keys and metrics. An application is known by its
name in Serve, together with the Ray that runs it (so that an update may bring another model) or
with its model (so that another Ray may take over, or stand beside it).
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from moss_tp.errors import ConfigError, MossError
from serve_app.store.patient_lane import PatientLane
from serve_app.store.script import Script

logger = logging.getLogger(__name__)

CLAIM_S = 10.0
RENEW_S = 1.0
POLL_S = 0.5
ANSWER_S = 2.0
LIMIT_S = 6.0
_KEY = "moss:application"

# Args: name, Ray, model, ms. Nothing if it is ours now; else name and model of the holder, and for
# how many ms.
_TAKE = Script(
    """
local held = redis.call('HMGET', KEYS[1], 'name', 'ray', 'model')
if held[1] and (held[1] ~= ARGV[1] or (held[2] ~= ARGV[2] and held[3] ~= ARGV[3])) then
    return {held[1], held[3], redis.call('PTTL', KEYS[1])}
end
redis.call('HSET', KEYS[1], 'name', ARGV[1], 'ray', ARGV[2], 'model', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return {}
"""
)


@dataclass(frozen=True)
class Application:
    """`name` in Serve, the session name of its `ray`, and the first name of its `model`."""

    name: str
    ray: str
    model: str


class Claim:
    """Of `application` to the store at `url`, held for `claim_s` after the last renewal."""

    def __init__(self, url: str, application: Application, claim_s: float = CLAIM_S) -> None:
        self._url = url
        self._application = application
        self._claim_ms = round(claim_s * 1000)
        self._lane = PatientLane(url, 1, ANSWER_S)
        self._task: asyncio.Task[None] | None = None

    async def take(self) -> None:
        """Takes it, and renews it from now on.

        Raises ConfigError if another application holds it and is there, for which it waits for
        RENEW_S and a moment, or until the claim of one that is gone has ended. Raises
        StoreUnavailableError.
        """
        before = None
        while held := await self._try():
            name, model, left_ms = held[0].decode(), held[1].decode(), int(held[2])
            if before is not None and left_ms > before:  # renewed meanwhile
                raise self._refusal(name, model)
            before = left_ms
            await asyncio.sleep(POLL_S)
        self._task = asyncio.create_task(self._renew())

    async def close(self) -> None:
        """Ends the renewals; the claim stays for as long as it was taken, for others of the same
        application that may renew it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._lane.close()

    async def _try(self) -> Sequence[Any]:
        """What `_TAKE` returns."""
        args = *astuple(self._application), self._claim_ms
        found: Sequence[Any] = await self._lane.run(
            lambda redis: _TAKE.run(redis, [_KEY], *args), time.monotonic() + LIMIT_S
        )
        return found

    async def _renew(self) -> None:
        is_lost = False
        while True:
            await asyncio.sleep(RENEW_S)
            try:
                held = await self._try()
            except MossError:
                continue  # whoever needs the store says so
            if held and not is_lost:  # once; it may only happen after CLAIM_S of silence
                logger.error("%s", self._refusal(held[0].decode(), held[1].decode()))
            is_lost = bool(held)

    def _refusal(self, name: str, model: str) -> ConfigError:
        return ConfigError(
            f"the store at {self._lane.address} is in use by the application {name!r}, which serves"
            f" {model}: two would take up each other's turns, so give this one a database of its"
            f" own, such as {_next_database(self._url)}"
        )


def _next_database(url: str) -> str:
    """`url` with the number of another database, and without user name and password."""
    parts = urlsplit(url)
    path = parts.path.strip("/")
    if parts.scheme == "unix":
        number = int(parse_qs(parts.query).get("db", ["0"])[0])
        return f"unix://{parts.path}?db={number + 1}"
    number = int(path) if path.isdecimal() else 0
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/{number + 1}"
