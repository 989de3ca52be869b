"""Keeps the leases of all turns of a process: renews them in one call a period, and ends them.

Both are beside the turns, so that a store that hangs delays no answer. What a turn does under its
lease is decided elsewhere.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from moss_tp.errors import MossError
from serve_app.sessions.store import Lease, SessionStore

logger = logging.getLogger(__name__)

# A turn waits so long for its lease to end, so that the client's next turn is not refused.
RELEASE_WAIT_S = 0.2
# Leases outlive an outage of their store only if they are renewed soon after it.
RETRY_S = 1.0


@dataclass
class HeldLease:
    """A lease under which a turn runs. Set `is_spent` when a commit has ended it.

    A lost lease does not stop the turn: `commit` compares the session's length.
    """

    lease: Lease
    is_spent: bool = False
    is_lost: bool = False


class LeaseKeeper:
    """Renews every lease that is held, every `renewal_s` seconds, while there are any.

    A renewal that failed is repeated within RETRY_S, whatever its error was.
    """

    def __init__(self, store: SessionStore, renewal_s: float) -> None:
        self._store = store
        self._renewal_s = renewal_s
        self._held: dict[Lease, HeldLease] = {}
        self._ending: dict[Lease, asyncio.Future[None]] = {}
        self._renewing: asyncio.Task[None] | None = None
        self._releasing: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def hold(self, lease: Lease) -> AsyncIterator[HeldLease]:
        """Holds a lease that was just taken, and ends it unless that was done or it was lost."""
        held = self._held[lease] = HeldLease(lease)
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._renew())
        try:
            yield held
        finally:
            self._held.pop(lease, None)
            if not self._held and self._renewing is not None:
                self._renewing.cancel()
                self._renewing = None
            if not (held.is_spent or held.is_lost):
                await self.end(lease)

    async def end(self, lease: Lease) -> None:
        """End `lease`, if it is held. Waits a moment for that; a task of its own does the rest."""
        ended = asyncio.get_running_loop().create_future()
        self._ending[lease] = ended
        if self._releasing is None or self._releasing.done():
            self._releasing = asyncio.create_task(self._release())
        await asyncio.wait({ended}, timeout=RELEASE_WAIT_S)

    async def _renew(self) -> None:
        pause_s = self._renewal_s
        while True:
            await asyncio.sleep(pause_s)
            leases = tuple(self._held)
            try:
                are_held = await self._store.renew(leases)
                self._mark_lost(leases, are_held)
                pause_s = self._renewal_s
            except Exception as error:
                _log_failure(error, f"{len(leases)} leases could not be renewed")
                pause_s = min(self._renewal_s, RETRY_S)

    def _mark_lost(self, leases: Sequence[Lease], are_held: Sequence[bool]) -> None:
        for lease, is_held in zip(leases, are_held, strict=True):
            if not is_held and lease in self._held:
                logger.warning("a lease was lost; its turn goes on")
                self._held.pop(lease).is_lost = True

    async def _release(self) -> None:
        """Releases what has to end, all at once, until nothing is left."""
        while self._ending:
            batch, self._ending = self._ending, {}
            try:
                await self._store.release(tuple(batch))
            except Exception as error:
                _log_failure(error, f"{len(batch)} leases could not be ended and will expire")
            for ended in batch.values():
                if not ended.done():
                    ended.set_result(None)


def _log_failure(error: Exception, what: str) -> None:
    """With a traceback if it is a bug of ours and not a failure of the store."""
    bug = None if isinstance(error, MossError) else error
    logger.warning("%s: %s", what, error, exc_info=bug)
