"""Drains an ingress replica that Serve takes down: a rolling update, or fewer replicas.

Serve sends such a replica nothing more, waits for its requests and then kills it, but tells it
nothing before. So the replica asks Ray for the actor that it runs in, which is private.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any

from serve_app.http.drain import END_S, Drain

POLL_S = 0.5
# What a replica gets beyond the time to drain: to end the turns that it cuts, and to be told.
CUT_S = END_S + 5


def is_being_stopped() -> bool:
    """Whether Serve has begun to stop the replica in this process."""
    worker: Any = import_module("ray._private.worker").global_worker
    replica = getattr(worker.actors.get(worker.actor_id), "_replica_impl", None)
    return bool(getattr(replica, "_shutting_down", False))


async def drain_when_stopped(
    drain: Drain, within_s: float, is_stopped: Callable[[], bool] = is_being_stopped
) -> None:
    """Once the replica is stopped, ends what runs after `within_s`.

    It refuses nothing: what Serve has sent meanwhile, it waits for. Nor do readers of a live turn
    have to come back, as when the whole server stops.
    """
    while not is_stopped():
        await asyncio.sleep(POLL_S)
    drain.begin(is_refusing=False)
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await drain.wait_over()
    await drain.finish(0)


async def finish_turns(drain: Drain, stop: "asyncio.Task[None]") -> None:
    """Of a replica that gets no more requests, and whose `drain_when_stopped` is `stop`: returns
    when no turn runs, those included whose readers have left, or when they are over."""
    idle = asyncio.create_task(drain.wait_idle())
    await asyncio.wait({idle, stop}, return_when=asyncio.FIRST_COMPLETED)
    for task in (idle, stop):
        task.cancel()
