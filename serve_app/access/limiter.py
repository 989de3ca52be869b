"""Holds keys to their limits, over all ingresses: requests, tokens and running turns.

A running turn has a lease, which is renewed while it runs, so the turns of an ingress that dies
stop counting within seconds. What the buckets do is in the scripts.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from moss_tp.errors import MossError
from serve_app.access import limit_scripts as scripts
from serve_app.access.gate import Admission, Ticket
from serve_app.access.principal import Limits
from serve_app.access.steps import make_lane, run_script
from serve_app.errors import RateLimitError
from serve_app.store.script import Arg, Script

logger = logging.getLogger(__name__)

LEASE_S = 15.0
RENEW_EVERY_S = 5.0
# A turn waits so long for its end to be counted; a task of its own does the rest.
SETTLE_WAIT_S = 0.2
_WORDS = {
    "requests_per_s": "requests a second",
    "tokens_per_min": "tokens a minute",
    "running_turns": "turns at a time",
}


@dataclass(frozen=True)
class _Turn:
    """A running turn of a key."""

    id: str
    key_id: str
    limits: Limits


class Limiter:
    """Limits in the store at `url`. Use it in one event loop only.

    `now_ms` replaces the store's clock, for tests.
    """

    def __init__(
        self, url: str, lease_s: float = LEASE_S, now_ms: Callable[[], int] | None = None
    ) -> None:
        self._lane = make_lane(url)
        self._lease_ms = round(lease_s * 1000)
        self._renew_every_s = lease_s * RENEW_EVERY_S / LEASE_S
        self._clock = now_ms
        self._running: set[_Turn] = set()
        self._renewing: asyncio.Task[None] | None = None
        self._beside: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def admit(self, key_id: str, limits: Limits, num_tokens: int) -> AsyncIterator[Admission]:
        """See `Gate.admit`."""
        turn = _Turn(secrets.token_hex(8), key_id, limits)
        try:
            await self._take(turn, num_tokens, self._lease_ms)
        except RateLimitError:
            raise
        except BaseException:  # it may have been let in, or be on its way, and nobody was told
            await self._settle(scripts.WITHDRAW, turn, num_tokens)
            raise
        ticket = Ticket(turn.id, key_id, limits.tokens_per_min, num_tokens)
        async with self._counted(turn, ticket) as admission:
            yield admission

    @asynccontextmanager
    async def resume(self, ticket: Ticket) -> AsyncIterator[Admission]:
        """See `Gate.resume`. Its lease may be over, so it is renewed at once, beside the work."""
        limits = Limits(tokens_per_min=ticket.tokens_per_min)
        async with self._counted(_Turn(ticket.id, ticket.key_id, limits), ticket) as admission:
            self._aside(self._renew_soon())
            yield admission

    @asynccontextmanager
    async def _counted(self, turn: _Turn, ticket: Ticket) -> AsyncIterator[Admission]:
        """A turn that is renewed for the block, and settled at its end unless it goes on."""
        admission = Admission(ticket.num_tokens, ticket)
        self._running.add(turn)
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._renew())
        try:
            yield admission
        finally:
            self._running.discard(turn)
            if not self._running and self._renewing is not None:
                self._renewing.cancel()
                self._renewing = None
            if not admission.is_left:
                more_tokens = admission.num_tokens - ticket.num_tokens
                await self._settle(scripts.SETTLE, turn, more_tokens)

    async def charge(self, key_id: str, limits: Limits) -> None:
        """See `Gate.charge`. A lease of no length is over: it is not a running turn."""
        if limits.requests_per_s is not None:
            request = _Turn(secrets.token_hex(8), key_id, Limits(limits.requests_per_s))
            await self._take(request, 0, lease_ms=0)

    async def close(self) -> None:
        await asyncio.gather(*self._beside)
        await self._lane.close()

    def _now_ms(self) -> Arg:
        return "" if self._clock is None else self._clock()

    async def _take(self, turn: _Turn, num_tokens: int, lease_ms: int) -> None:
        limits = turn.limits
        asked = (limits.requests_per_s, limits.tokens_per_min, limits.running_turns)
        refused = await run_script(
            self._lane,
            scripts.ADMIT,
            scripts.keys_of(turn.key_id),
            self._now_ms(),
            turn.id,
            lease_ms,
            *("" if limit is None else repr(limit) for limit in asked),
            num_tokens,
        )
        if refused is not None:
            name, wait_ms = refused[0].decode(), int(refused[1])
            limit = f"{getattr(limits, name):g} {_WORDS[name]}"
            raise RateLimitError(f"your key is limited to {limit}", wait_ms / 1000)

    async def _settle(self, script: Script, turn: _Turn, num_tokens: int) -> None:
        task = self._aside(self._end(script, turn, num_tokens))
        await asyncio.wait({task}, timeout=SETTLE_WAIT_S)

    def _aside(self, step: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Runs `step` in a task of its own, which `close` waits for."""
        task = asyncio.create_task(step)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)
        return task

    async def _end(self, script: Script, turn: _Turn, num_tokens: int) -> None:
        per_min = turn.limits.tokens_per_min
        args = turn.id, "" if per_min is None else per_min, num_tokens
        keys = scripts.keys_of(turn.key_id)
        with _logged_failure("the end of a turn was not counted; its lease will expire"):
            await run_script(self._lane, script, keys, self._now_ms(), *args)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._renew_every_s)
            await self._renew_soon()

    async def _renew_soon(self) -> None:
        with _logged_failure("running turns were not counted on; their leases may expire"):
            await self._renew_all()

    async def _renew_all(self) -> None:
        calls = [
            (scripts.keys_of(turn.key_id)[1], (self._now_ms(), turn.id, self._lease_ms))
            for turn in self._running
        ]
        until = time.monotonic() + self._renew_every_s
        await self._lane.run(lambda redis: scripts.RENEW.run_all(redis, calls), until)


@contextmanager
def _logged_failure(what: str) -> Iterator[None]:
    try:
        yield
    except MossError as error:
        logger.warning("%s: %s", what, error)
