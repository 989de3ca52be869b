"""Holds a lease while its turn runs: renews it in time and releases it at the end."""

import asyncio
import logging
from types import TracebackType
from typing import Self

from serve_app.errors import StoreUnavailableError
from serve_app.sessions.store import Lease, SessionStore

logger = logging.getLogger(__name__)


class HeldLease:
    """Holds a lease that was just taken. Set `is_spent` when a commit has ended it.

    A lost lease does not stop the turn: `commit` compares the session's length.
    """

    def __init__(self, store: SessionStore, lease: Lease, renewal_s: float) -> None:
        self._store = store
        self._lease = lease
        self._renewal_s = renewal_s
        self._renewing: asyncio.Task[None] | None = None
        self.is_spent = False

    async def __aenter__(self) -> Self:
        self._renewing = asyncio.create_task(self._renew())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
        if self.is_spent:
            return
        try:
            await self._store.release(self._lease)
        except StoreUnavailableError:
            logger.warning("a lease could not be released and will expire")

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._renewal_s)
            try:
                if not await self._store.renew(self._lease):
                    return
            except StoreUnavailableError:
                logger.warning("a lease could not be renewed")
