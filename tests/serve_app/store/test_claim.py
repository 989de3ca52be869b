"""One application a database of the store: who else may come, who is refused, who may take over."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable

import pytest
from redis.asyncio import Redis

from moss_tp.errors import ConfigError
from serve_app.store import claim as module
from serve_app.store.claim import Application, Claim
from tests.support.waiting import until

MOSS = Application("moss", "session_1", "moss-moon")
NANO = Application("nano", "session_1", "moss-nano")

MakeClaim = Callable[..., Claim]


@pytest.fixture
async def make(store_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[MakeClaim]:
    """Claims that are renewed every 20 ms."""
    monkeypatch.setattr(module, "RENEW_S", 0.02)
    monkeypatch.setattr(module, "POLL_S", 0.05)
    made: list[Claim] = []

    def claim(application: Application, claim_s: float = 10.0) -> Claim:
        made.append(Claim(store_url, application, claim_s))
        return made[-1]

    async with Redis.from_url(store_url) as raw:
        await raw.delete("moss:application")
    yield claim
    for each in made:
        await each.close()


@pytest.mark.parametrize(
    "other",
    [
        MOSS,  # another ingress
        Application("moss", "session_1", "moss-moon-2"),  # an update
        Application("moss", "session_2", "moss-moon"),  # a restart, or another machine
    ],
)
async def test_the_same_application_may_come_again(make: MakeClaim, other: Application) -> None:
    await make(MOSS).take()
    await make(other).take()


@pytest.mark.parametrize("other", [NANO, Application("moss", "session_2", "moss-nano")])
async def test_another_one_is_refused_by_name(
    make: MakeClaim, store_url: str, other: Application
) -> None:
    await make(MOSS).take()
    words = rf"application 'moss', which serves moss-moon: .* own, such as {store_url}\?db=1$"
    with pytest.raises(ConfigError, match=words):
        await make(other).take()


async def test_each_database_has_an_application_of_its_own(make: MakeClaim, store_url: str) -> None:
    await make(MOSS).take()
    beside = Claim(f"{store_url}?db=1", NANO, 0.1)
    await beside.take()
    await beside.close()


async def test_a_claim_that_nobody_renews_is_taken_over_when_it_ends(make: MakeClaim) -> None:
    gone = make(MOSS, claim_s=0.4)
    await gone.take()
    await gone.close()
    began = time.monotonic()
    await make(NANO).take()
    assert 0.3 < time.monotonic() - began < 5
    with pytest.raises(ConfigError, match="'nano'"):
        await make(MOSS).take()


async def test_who_finds_its_claim_taken_says_so_once(
    make: MakeClaim, store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    await make(MOSS).take()
    async with Redis.from_url(store_url) as raw:
        await raw.hset("moss:application", mapping={"name": "nano", "ray": "r", "model": "m"})
    await until(lambda: bool(caplog.records))
    await asyncio.sleep(0.1)
    (record,) = caplog.records
    assert "in use by the application 'nano'" in record.getMessage()


@pytest.mark.parametrize(
    ("url", "other"),
    [
        ("redis://:secret@10.0.0.1:6379", "redis://10.0.0.1:6379/1"),
        ("rediss://host/3", "rediss://host/4"),
        ("unix:///run/store.sock", "unix:///run/store.sock?db=1"),
        ("unix:///run/store.sock?db=2", "unix:///run/store.sock?db=3"),
    ],
)
def test_the_other_database_that_is_named(url: str, other: str) -> None:
    assert module._next_database(url) == other
