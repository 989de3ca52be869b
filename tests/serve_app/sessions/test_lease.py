"""Leases are renewed together while their turns run, and ended once, beside the turns."""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import pytest

from serve_app.errors import StoreUnavailableError
from serve_app.sessions.lease import LeaseKeeper
from serve_app.sessions.session import new_token
from serve_app.sessions.store import Lease, SessionStore

RENEWAL_S = 0.005
AWAY = StoreUnavailableError("down")


def a_lease() -> Lease:
    return Lease(new_token(), "ann", "key", new_token())


@dataclass
class FakeStore:
    """Has lost the leases in `lost`, fails with `failure`, and hangs without `answers`."""

    lost: set[Lease] = field(default_factory=set)
    failure: Exception | None = None
    answers: asyncio.Event = field(default_factory=asyncio.Event)
    renewals: list[Sequence[Lease]] = field(default_factory=list)
    releases: list[Sequence[Lease]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.answers.set()

    async def renew(self, leases: Sequence[Lease]) -> list[bool]:
        self.renewals.append(leases)
        await self._answer()
        return [lease not in self.lost for lease in leases]

    async def release(self, leases: Sequence[Lease]) -> None:
        self.releases.append(leases)
        await self._answer()

    async def _answer(self) -> None:
        await self.answers.wait()
        if self.failure is not None:
            raise self.failure


def keeper(store: FakeStore, renewal_s: float = RENEWAL_S) -> LeaseKeeper:
    return LeaseKeeper(cast(SessionStore, store), renewal_s)


async def renewed(store: FakeStore, times: int) -> None:
    """Returns when the store was asked `times` more."""
    async with asyncio.timeout(10):
        until = len(store.renewals) + times
        while len(store.renewals) < until:
            await asyncio.sleep(RENEWAL_S)


async def test_a_lease_is_renewed_while_its_turn_runs_and_then_ended() -> None:
    store, lease = FakeStore(), a_lease()
    async with keeper(store).hold(lease):
        await renewed(store, 3)
        assert store.releases == []
    assert store.releases == [(lease,)]
    count = len(store.renewals)
    await asyncio.sleep(4 * RENEWAL_S)
    assert len(store.renewals) == count and set(store.renewals) == {(lease,)}


async def test_one_call_renews_all_leases() -> None:
    store = FakeStore()
    leases = keeper(store)
    many = [a_lease() for _ in range(200)]
    go_on = asyncio.Event()

    async def turn(lease: Lease) -> None:
        async with leases.hold(lease):
            await go_on.wait()

    turns = [asyncio.create_task(turn(lease)) for lease in many]
    await renewed(store, 4)
    assert all(set(called) == set(many) for called in store.renewals[1:])
    go_on.set()
    await asyncio.gather(*turns)
    assert {lease for batch in store.releases for lease in batch} == set(many)
    assert len(store.releases) <= 2, "they are ended together, too"


async def test_a_later_turn_is_renewed_as_the_first_one_was() -> None:
    store, leases = FakeStore(), None
    leases = keeper(store)
    for _ in range(3):
        async with leases.hold(a_lease()):
            await renewed(store, 2)


async def test_a_short_turn_renews_nothing() -> None:
    store, lease = FakeStore(), a_lease()
    async with keeper(store, renewal_s=60).hold(lease):
        await asyncio.sleep(0)
    assert (store.renewals, store.releases) == ([], [(lease,)])


async def test_a_lease_that_a_commit_has_ended_is_not_released() -> None:
    """By then it may be another turn's."""
    store = FakeStore()
    async with keeper(store).hold(a_lease()) as held:
        held.is_spent = True
    assert store.releases == []


async def test_a_failed_turn_ends_its_lease() -> None:
    store, lease = FakeStore(), a_lease()
    with pytest.raises(ZeroDivisionError):
        async with keeper(store).hold(lease):
            raise ZeroDivisionError
    assert store.releases == [(lease,)]


async def test_a_lost_lease_is_noticed_by_its_own_turn_only() -> None:
    store, mine, others = FakeStore(), a_lease(), a_lease()
    leases = keeper(store)
    async with leases.hold(mine) as held, leases.hold(others) as other:
        store.lost.add(mine)
        await renewed(store, 3)
        assert (held.is_lost, other.is_lost) == (True, False)
        assert store.renewals[-1] == (others,)
    assert store.releases == [(others,)], "the lost one may be another turn's"


async def test_an_unavailable_store_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    store = FakeStore(failure=AWAY)
    with caplog.at_level(logging.WARNING):
        async with keeper(store).hold(a_lease()) as held:
            await renewed(store, 2)
            store.failure = None
            await renewed(store, 2)
        assert not held.is_lost
    assert "1 leases could not be renewed: down" in caplog.text


async def test_a_failed_renewal_is_repeated_long_before_the_next_one() -> None:
    """The store is back before the leases expire, but a whole period later they are lost."""
    store, period_s = FakeStore(), 3.0
    async with keeper(store, period_s).hold(a_lease()):
        store.failure = AWAY
        await renewed(store, 1)
        store.failure = None
        failed_at = time.monotonic()
        await renewed(store, 1)
        assert time.monotonic() - failed_at < period_s - 0.1


async def test_a_bug_ends_neither_renewals_nor_releases(caplog: pytest.LogCaptureFixture) -> None:
    store, first, second = FakeStore(failure=RuntimeError("a bug")), a_lease(), a_lease()
    leases = keeper(store)
    with caplog.at_level(logging.WARNING):
        async with leases.hold(first):
            await renewed(store, 2)
            async with leases.hold(second):
                pass
            store.failure = None
            await renewed(store, 2)
    assert store.releases == [(second,), (first,)]
    assert {str(record.exc_info[1]) for record in caplog.records if record.exc_info} == {"a bug"}
    assert "1 leases could not be ended and will expire: a bug" in caplog.text


async def test_a_failed_release_does_not_fail_the_turn(caplog: pytest.LogCaptureFixture) -> None:
    store = FakeStore(failure=AWAY)
    with caplog.at_level(logging.WARNING):
        async with keeper(store).hold(a_lease()):
            pass
    assert "will expire" in caplog.text


async def test_a_store_that_hangs_does_not_hold_up_the_end_of_a_turn() -> None:
    store = FakeStore()
    leases = keeper(store)
    store.answers.clear()
    many = [a_lease() for _ in range(50)]

    async def turn(lease: Lease) -> None:
        async with leases.hold(lease):
            await renewed(store, 1)

    async with asyncio.timeout(10):
        await asyncio.gather(*(turn(lease) for lease in many))
    assert len(store.releases) == 1, "later ones wait for its answer"
    store.answers.set()
    async with asyncio.timeout(10):
        while {lease for batch in store.releases for lease in batch} != set(many):
            await asyncio.sleep(RENEWAL_S)
    assert len(store.releases) <= 2
