"""A held lease: renewed during its turn, released once; losing it does not fail the turn."""

import asyncio
import logging
from dataclasses import dataclass, field
from typing import cast

import pytest

from serve_app.errors import StoreUnavailableError
from serve_app.sessions.lease import HeldLease
from serve_app.sessions.store import Lease, SessionStore

LEASE = Lease("0" * 32, "ann", "key", "token")
RENEWAL_S = 0.005


@dataclass
class FakeStore:
    """`renewals` are the answers to `renew`, True when there are none left."""

    renewals: list[bool | Exception] = field(default_factory=list)
    release_error: Exception | None = None
    num_renewed: int = 0
    released: list[Lease] = field(default_factory=list)

    async def renew(self, lease: Lease) -> bool:
        assert lease is LEASE
        self.num_renewed += 1
        answer = self.renewals.pop(0) if self.renewals else True
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def release(self, lease: Lease) -> None:
        self.released.append(lease)
        if self.release_error is not None:
            raise self.release_error


def hold(store: FakeStore, renewal_s: float = RENEWAL_S) -> HeldLease:
    return HeldLease(cast(SessionStore, store), LEASE, renewal_s)


async def test_it_is_renewed_while_the_turn_runs_and_then_released() -> None:
    store = FakeStore()
    async with asyncio.timeout(5), hold(store):
        while store.num_renewed < 3:
            await asyncio.sleep(RENEWAL_S)
        assert store.released == []
    assert store.released == [LEASE]
    num_renewed = store.num_renewed
    await asyncio.sleep(4 * RENEWAL_S)
    assert store.num_renewed == num_renewed


async def test_a_short_turn_renews_nothing() -> None:
    store = FakeStore()
    async with hold(store, renewal_s=60):
        await asyncio.sleep(0)
    assert (store.num_renewed, store.released) == (0, [LEASE])


async def test_a_lease_that_a_commit_has_ended_is_not_released() -> None:
    """By then it may be another turn's."""
    store = FakeStore()
    async with hold(store) as held:
        held.is_spent = True
    assert store.released == []


async def test_a_failed_turn_releases_it() -> None:
    store = FakeStore()
    with pytest.raises(ZeroDivisionError):
        async with hold(store):
            raise ZeroDivisionError
    assert store.released == [LEASE]


async def test_a_lost_lease_is_not_renewed_and_the_turn_continues() -> None:
    store = FakeStore([True, False])
    async with hold(store):
        await asyncio.sleep(10 * RENEWAL_S)
        assert store.num_renewed == 2


async def test_an_unavailable_store_is_retried(caplog: pytest.LogCaptureFixture) -> None:
    store = FakeStore([StoreUnavailableError("down"), StoreUnavailableError("down"), True])
    with caplog.at_level(logging.WARNING):
        async with asyncio.timeout(5), hold(store):
            while store.num_renewed < 4:
                await asyncio.sleep(RENEWAL_S)
    assert [record.message for record in caplog.records] == ["a lease could not be renewed"] * 2


async def test_a_failed_release_does_not_fail_the_turn(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = FakeStore(release_error=StoreUnavailableError("down"))
    with caplog.at_level(logging.WARNING):
        async with hold(store):
            pass
    assert "will expire" in caplog.text
