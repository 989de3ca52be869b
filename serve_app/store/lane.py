"""A lane to the store: a few connections for one kind of step, and the only loop that retries.

A step that finds no connection free waits in line, within its deadline, so that a burst of one
kind costs the others nothing. What a step does is decided elsewhere; it must be idempotent.
"""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from math import inf
from pathlib import Path
from typing import TypeVar

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ReadOnlyError, RedisError
from redis.maint_notifications import MaintNotificationsConfig

from moss_tp.errors import ConfigError, DeadlineExceededError, MossError
from serve_app.errors import StoreUnavailableError
from serve_app.store.failures import explain, may_pass

T = TypeVar("T")
Step = Callable[[Redis], Awaitable[T]]

_PAUSE_S = 0.05
_MAX_PAUSE_S = 0.8
# A store that has been silent for less than this is not said to be away.
_FAIR_S = 1.0
# An idle connection that a firewall has dropped is found in half a minute.
_KEEPALIVE = {
    socket.TCP_KEEPIDLE: 15,
    socket.TCP_KEEPINTVL: 5,
    socket.TCP_KEEPCNT: 3,
}
_NO_MAINTENANCE = MaintNotificationsConfig(enabled=False)


class Lane:
    """At most `num_connections` to the server at `url`, each attempt of at most `answer_s`.

    A step is tried until its deadline, but given up when the server has answered no step for
    `patience_s`. Raises ConfigError for an invalid URL.
    """

    def __init__(
        self, url: str, num_connections: int, answer_s: float, patience_s: float = inf
    ) -> None:
        self._redis = Redis.from_pool(_pool(url, answer_s))
        self.address, self.is_local = _address(self._redis)
        self.data_dir: Path | None = None  # where the server keeps its data, if known
        self._slots = asyncio.Semaphore(num_connections)
        self._answer_s = answer_s
        self._patience_s = patience_s
        self._answered_at = -inf

    async def run(self, step: Step[T], deadline: float) -> T:
        """The result of `step`, which gets until `deadline`, in `time.monotonic` seconds.

        Raises StoreUnavailableError if the server is away or refuses the step, and
        DeadlineExceededError if it only has too much to do.
        """
        started = time.monotonic()
        for pause_s in _pauses():
            try:
                return await self._attempt(step, started, deadline)
            except (RedisError, OSError) as error:  # TimeoutError when an attempt's time is over
                if not may_pass(error):
                    raise self._unavailable(error) from error
                if self._left_s(started, deadline) <= pause_s:
                    raise self._too_late(error, started) from error
            await asyncio.sleep(pause_s)
        raise AssertionError("the pauses never end")

    async def close(self) -> None:
        await self._redis.aclose()

    def _last_contact(self, started: float) -> float:
        """When the server answered last, or was first asked."""
        return max(started, self._answered_at)

    def _left_s(self, started: float, deadline: float) -> float:
        """Until the deadline, or until patience ends with a server that stays silent."""
        until = min(deadline, self._last_contact(started) + self._patience_s)
        return until - time.monotonic()

    async def _attempt(self, step: Step[T], started: float, deadline: float) -> T:
        await self._wait_in_line(started, deadline)
        try:
            left_s = self._left_s(started, deadline)
            if left_s <= 0:
                raise TimeoutError  # before anything is sent
            async with asyncio.timeout(min(self._answer_s, left_s)):
                return await self._answer(step)
        finally:
            self._slots.release()

    async def _wait_in_line(self, started: float, deadline: float) -> None:
        """Returns with a slot. A step keeps its place while the server answers others."""
        place = asyncio.create_task(self._slots.acquire())
        try:
            while not place.done():
                left_s = self._left_s(started, deadline)
                if left_s <= 0:
                    raise TimeoutError
                await asyncio.wait({place}, timeout=None if left_s == inf else left_s)
        except BaseException:
            if not place.cancel():  # it has the slot already
                self._slots.release()
            raise

    async def _answer(self, step: Step[T]) -> T:
        try:
            result = await step(self._redis)
        except ReadOnlyError:  # after a failover the address may lead to another server
            await self._redis.connection_pool.disconnect(inuse_connections=False)
            raise
        self._answered_at = time.monotonic()
        return result

    def _too_late(self, failure: Exception, started: float) -> MossError:
        """The error of a step that has run out of time, by whose fault that was."""
        silent_s = time.monotonic() - self._last_contact(started)
        if isinstance(failure, TimeoutError) and silent_s < _FAIR_S:
            return DeadlineExceededError("the deadline passed before the session store had time")
        return self._unavailable(failure)

    def _unavailable(self, failure: Exception) -> StoreUnavailableError:
        reason = explain(failure, self.data_dir)
        return StoreUnavailableError(f"the session store at {self.address} failed: {reason}")


def _pool(url: str, answer_s: float) -> ConnectionPool:
    """Connections that neither retry nor time out by themselves, whatever `url` says."""
    try:
        pool = ConnectionPool.from_url(url, maint_notifications_config=_NO_MAINTENANCE)
        options = pool.connection_kwargs
        options |= {
            "retry": Retry(NoBackoff(), 0),
            "socket_timeout": None,
            "socket_connect_timeout": answer_s,
            "decode_responses": False,
            "protocol": 2,
        }
        if "path" not in options:
            options |= {"socket_keepalive": True, "socket_keepalive_options": _KEEPALIVE}
        pool.max_connections = 2**31  # the lane's slots are the bound
        pool.connection_class(**options)  # refuses those that it does not know
    except (ValueError, TypeError) as error:
        raise ConfigError(f"not a store's URL: {error}") from error
    return pool


def _address(redis: Redis) -> tuple[str, bool]:
    """The server's address, without user name and password; whether it is a local socket."""
    options = redis.connection_pool.connection_kwargs
    if "path" in options:
        return str(options["path"]), True
    return f"{options.get('host', 'localhost')}:{options.get('port', 6379)}", False


def _pauses() -> Iterator[float]:
    pause_s = _PAUSE_S
    while True:
        yield pause_s
        pause_s = min(2 * pause_s, _MAX_PAUSE_S)
