"""Lanes: bounded connections, a line that is no failure, one loop of attempts within a deadline."""

import asyncio
import time

import pytest
from redis.asyncio import Redis

from moss_tp.errors import ConfigError, DeadlineExceededError
from serve_app.errors import StoreUnavailableError
from serve_app.sessions.redis import RedisSessionStore, StoreSettings
from serve_app.sessions.session import Turn, new_token
from serve_app.sessions.store import Lease
from serve_app.store.lane import Lane
from tests.serve_app.store_server import StoreServer

ANSWER_S = 5.0


def soon(seconds: float = 30) -> float:
    return time.monotonic() + seconds


async def ping(redis: Redis) -> bool:
    return bool(await redis.ping())


async def test_a_burst_waits_in_line_for_few_connections(own_server: StoreServer) -> None:
    lane = Lane(own_server.url, 3, ANSWER_S)
    most = 0

    async def count(redis: Redis) -> None:
        nonlocal most
        most = max(most, len(await redis.client_list()))

    await asyncio.gather(*(lane.run(count, soon()) for _ in range(400)))
    assert most == own_server.num_clients() == 3
    await lane.close()


async def test_a_deadline_in_line_is_no_failure_of_the_store(server: StoreServer) -> None:
    lane, go_on = Lane(server.url, 1, ANSWER_S), asyncio.Event()

    async def occupy(redis: Redis) -> bool:
        await go_on.wait()
        return await ping(redis)

    first = asyncio.create_task(lane.run(occupy, soon()))
    await asyncio.sleep(0)
    with pytest.raises(DeadlineExceededError):
        await lane.run(ping, soon(0.1))
    with pytest.raises(DeadlineExceededError):
        await lane.run(ping, soon(-1))
    go_on.set()
    assert await first and await lane.run(ping, soon())
    await lane.close()


@pytest.mark.parametrize("server", ["valkey"], indirect=True)  # it is the client that counts
async def test_the_oldest_step_in_line_is_next_however_long_it_waits(server: StoreServer) -> None:
    """All the while the server answers, so nobody's patience ends."""
    lane = Lane(server.url, 1, ANSWER_S, patience_s=1.5)
    answered: list[int] = []

    async def slow(number: int) -> None:
        async def work(redis: Redis) -> None:
            await asyncio.sleep(0.2)
            assert await ping(redis)
            answered.append(number)

        await lane.run(work, soon(60))

    async with asyncio.TaskGroup() as steps:
        for number in range(20):
            steps.create_task(slow(number))
            await asyncio.sleep(0 if number < 12 else 0.2)
    assert answered == list(range(20))
    await lane.close()


@pytest.mark.parametrize("own_server", ["valkey"], indirect=True)  # it is the client that counts
async def test_the_line_is_told_when_the_server_has_been_silent(own_server: StoreServer) -> None:
    lane = Lane(own_server.url, 1, answer_s=0.3, patience_s=1.2)
    with own_server.stopped():
        start = time.monotonic()
        steps = [lane.run(ping, soon(60)) for _ in range(30)]
        results = await asyncio.gather(*steps, return_exceptions=True)
        assert {type(result) for result in results} == {StoreUnavailableError}
        assert time.monotonic() - start < 20
    assert await lane.run(ping, soon())
    await lane.close()


async def test_a_cancelled_step_gives_its_place_back(server: StoreServer) -> None:
    lane = Lane(server.url, 2, ANSWER_S)

    async def hang(redis: Redis) -> None:
        await redis.blpop(["nothing"])

    for _ in range(10):
        tasks = [asyncio.create_task(lane.run(hang, soon())) for _ in range(6)]
        await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    assert await lane.run(ping, soon())
    await lane.close()


async def test_answers_never_mix_after_cancelled_steps(server: StoreServer) -> None:
    """A connection whose answer was not read is not used again."""
    lane = Lane(server.url, 4, ANSWER_S)

    async def echo(number: int) -> None:
        assert await lane.run(lambda redis: redis.echo(str(number)), soon()) == b"%d" % number

    for round_ in range(30):
        tasks = [asyncio.create_task(echo(100 * round_ + number)) for number in range(30)]
        await asyncio.sleep(0.0005 * (round_ % 5))
        for task in tasks[::3]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(r) for r in results} <= {type(None), asyncio.CancelledError}
    await lane.close()


async def test_a_step_is_tried_until_the_server_is_back(own_server: StoreServer) -> None:
    lane = Lane(own_server.url, 2, ANSWER_S)
    assert await lane.run(ping, soon())
    own_server.kill()
    waiting = asyncio.create_task(lane.run(ping, soon(60)))
    with pytest.raises(StoreUnavailableError, match="Connection refused"):
        await lane.run(ping, soon(0.3))
    await asyncio.to_thread(own_server.start)
    assert await waiting
    await lane.close()


@pytest.mark.parametrize("own_server", ["valkey"], indirect=True)  # it is the client that counts
async def test_a_hang_costs_a_deadline_and_not_a_multiple_of_it(own_server: StoreServer) -> None:
    lane = Lane(own_server.url, 2, answer_s=0.3)
    with own_server.stopped():
        start = time.monotonic()
        with pytest.raises(StoreUnavailableError, match="does not answer"):
            await lane.run(ping, soon(2))
        assert time.monotonic() - start < 10, "it was 111 s"
    assert await lane.run(ping, soon())
    await lane.close()


async def test_a_commit_waits_behind_no_other_turn(server: StoreServer) -> None:
    """Turns come in faster than they can be opened, and one that was let in ends."""
    store = RedisSessionStore(server.url, StoreSettings(num_connections=1))
    leases = [Lease(new_token(), "ann", new_token(), new_token()) for _ in range(1000)]
    mine = leases.pop()
    assert await store.begin(mine, may_create=True)
    steps = [store.begin(lease, soon(120), may_create=True) for lease in leases]
    opening = [asyncio.create_task(step) for step in steps]
    await asyncio.sleep(0)
    assert await store.renew([mine]) == [True]
    await store.commit(mine, 0, Turn("hi", "", "", "", "ho", mine.key), soon())
    num_open = sum(task.done() for task in opening)
    assert num_open < len(opening) / 2
    assert all(await asyncio.gather(*opening))
    await store.close()


@pytest.mark.parametrize("query", ["max_connections=1", "decode_responses=yes", "protocol=3"])
async def test_the_options_of_a_url_do_not_change_ours(server: StoreServer, query: str) -> None:
    store = RedisSessionStore(f"{server.url}?{query}")
    leases = [Lease(new_token(), "ann", new_token(), new_token()) for _ in range(50)]
    assert all(await asyncio.gather(*(store.begin(each, may_create=True) for each in leases)))
    assert await store.reserve_uid("ann", "key " + query)
    await store.close()


@pytest.mark.parametrize("url", ["redis://host?colour=red", "redis://host?db=x", "http://host"])
def test_a_url_that_no_connection_understands_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="not a store's URL"):
        Lane(url, 1, ANSWER_S)
