"""A patient lane: whoever waited in vain learns that the store was the reason."""

import asyncio
import time

import pytest
from redis.asyncio import Redis

from serve_app.errors import StoreUnavailableError
from serve_app.store.patient_lane import PatientLane
from tests.serve_app.store_server import StoreServer


async def test_a_store_that_is_too_busy_is_not_available(server: StoreServer) -> None:
    lane, go_on = PatientLane(server.url, 1, 5.0), asyncio.Event()

    async def occupy(redis: Redis) -> bool:
        await go_on.wait()
        return bool(await redis.ping())

    first = asyncio.create_task(lane.run(occupy, time.monotonic() + 30))
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailableError, match="too busy"):
        await lane.run(occupy, time.monotonic() + 0.1)
    go_on.set()
    assert await first
    await lane.close()
