"""The limiter over a real store: what its callers see, and what outlives an ingress."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest

from serve_app.access.limiter import Limiter
from serve_app.access.principal import Limits
from serve_app.errors import RateLimitError
from tests.serve_app.store_server import StoreServer

# Its renewals may be late, on a busy machine.
LEASE_S = 0.8


@pytest.fixture
async def limiter(server: StoreServer) -> AsyncIterator[Limiter]:
    made = Limiter(server.url, lease_s=LEASE_S)
    yield made
    await made.close()


@pytest.fixture
def key_id() -> str:
    return secrets.token_hex(6)


async def refusal(limiter: Limiter, key_id: str, limits: Limits, tokens: int = 1) -> RateLimitError:
    with pytest.raises(RateLimitError) as refused:
        async with limiter.admit(key_id, limits, tokens):
            pass
    return refused.value


async def test_requests_are_bounded_per_second(limiter: Limiter, key_id: str) -> None:
    limits = Limits(requests_per_s=1)
    async with limiter.admit(key_id, limits, 10):
        pass
    error = await refusal(limiter, key_id, limits)
    assert 0 < error.retry_after_s <= 1
    assert str(error) == "your key is limited to 1 requests a second"
    await asyncio.sleep(error.retry_after_s)
    async with limiter.admit(key_id, limits, 10):
        pass
    async with limiter.admit(secrets.token_hex(6), limits, 10):  # another key
        pass


async def test_tokens_are_settled_at_the_end(limiter: Limiter, key_id: str) -> None:
    limits = Limits(tokens_per_min=600)
    async with limiter.admit(key_id, limits, 100) as admission:
        assert admission.num_tokens == 100
        admission.num_tokens = 800  # prompt and reply: 200 more than there were
    error = await refusal(limiter, key_id, limits, 50)
    assert 24 < error.retry_after_s <= 25.0
    assert str(error) == "your key is limited to 600 tokens a minute"


async def test_what_was_not_used_comes_back(limiter: Limiter, key_id: str) -> None:
    limits = Limits(tokens_per_min=600)
    with pytest.raises(ZeroDivisionError):
        async with limiter.admit(key_id, limits, 600) as admission:
            admission.num_tokens = 0
            raise ZeroDivisionError
    async with limiter.admit(key_id, limits, 600):
        error = await refusal(limiter, key_id, limits, 50)
        assert 4 < error.retry_after_s <= 5


async def test_running_turns_are_bounded_over_all_ingresses(
    limiter: Limiter, key_id: str, server: StoreServer
) -> None:
    limits, other = Limits(running_turns=2), Limiter(server.url)
    async with limiter.admit(key_id, limits, 1), other.admit(key_id, limits, 1):
        await asyncio.sleep(2.1 * LEASE_S)  # more than two leases
        error = await refusal(other, key_id, limits)
        assert str(error) == "your key is limited to 2 turns at a time"
        assert error.retry_after_s == 1
    async with limiter.admit(key_id, limits, 1), limiter.admit(key_id, limits, 1):
        pass
    await other.close()


async def test_the_turns_of_a_dead_ingress_end(
    limiter: Limiter, key_id: str, server: StoreServer
) -> None:
    limits, dead = Limits(running_turns=1), Limiter(server.url, lease_s=LEASE_S)
    turn = dead.admit(key_id, limits, 1)
    await turn.__aenter__()
    assert dead._renewing is not None
    dead._renewing.cancel()  # as if its process had been killed
    await refusal(limiter, key_id, limits)
    await asyncio.sleep(LEASE_S + 0.1)
    async with limiter.admit(key_id, limits, 1):
        pass
    await turn.__aexit__(None, None, None)
    await dead.close()


async def test_a_cancelled_turn_ends_at_once(limiter: Limiter, key_id: str) -> None:
    limits, is_in = Limits(running_turns=1), asyncio.Event()

    async def work() -> None:
        async with limiter.admit(key_id, limits, 1):
            is_in.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await is_in.wait()
    await refusal(limiter, key_id, limits)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with limiter.admit(key_id, limits, 1):
        pass


async def test_a_store_that_goes_away_does_not_hold_up_the_end(own_server: StoreServer) -> None:
    limiter = Limiter(own_server.url)
    loop = asyncio.get_running_loop()
    async with limiter.admit("k", Limits(running_turns=1), 1):
        own_server.kill()
        started = loop.time()
    assert loop.time() - started < 4, "a step waits 6 s for the store"
    own_server.start()
    await limiter.close()


async def test_a_request_that_is_cancelled_at_the_door_does_not_count(
    limiter: Limiter, key_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the store has let it in."""
    limits = Limits(running_turns=1, tokens_per_min=100)

    async def work() -> None:
        async with limiter.admit(key_id, limits, 100):
            raise AssertionError("it was cancelled")

    task = asyncio.create_task(work())
    run = limiter._lane.run

    async def run_and_cancel(*args: Any) -> Any:
        result = await run(*args)
        monkeypatch.undo()
        task.cancel()
        await asyncio.sleep(0)
        return result

    monkeypatch.setattr(limiter._lane, "run", run_and_cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    async with limiter.admit(key_id, limits, 100):
        pass


async def test_an_admission_that_comes_after_its_cancel_does_not_count(
    limiter: Limiter, key_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was on its way to the store, by another connection."""
    limits = Limits(running_turns=1, tokens_per_min=100)
    run, is_sent, sent = limiter._lane.run, asyncio.Event(), []

    async def run_late(*args: Any) -> Any:
        monkeypatch.undo()
        sent.append(args)
        is_sent.set()
        await asyncio.Event().wait()

    async def work() -> None:
        async with limiter.admit(key_id, limits, 100):
            raise AssertionError("it was cancelled")

    monkeypatch.setattr(limiter._lane, "run", run_late)
    task = asyncio.create_task(work())
    await is_sent.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await run(*sent[0])
    async with limiter.admit(key_id, limits, 100):
        error = await refusal(limiter, key_id, limits)
        assert "turns at a time" in str(error), "others are counted"
