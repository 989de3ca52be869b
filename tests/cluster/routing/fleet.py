"""Replicas that say who they are, and processes that ask them by a router of their own."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from cluster.routing.assigned import assigned_replica
from cluster.routing.config import router_config
from cluster.routing.hits import HITS, Hits
from cluster.routing.residency import ServedKeys
from cluster.routing.route import ANYWHERE, Route

APP = "fleet"
ASKERS = ("AskerOne", "AskerTwo")


@dataclass(frozen=True)
class Turn:
    """What a router reads of an engine's request."""

    request_id: str
    is_continuation: bool = False
    output_ids: tuple[int, ...] = ()


class Replica:
    """The methods of MossServer that a router or Serve calls."""

    def __init__(self, make_up: str = "") -> None:
        self._served = ServedKeys(make_up)
        self._released = asyncio.Event()

    async def generate(
        self, turn: Turn, *, route: Route = ANYWHERE, lasts_s: float = 0.0, is_held: bool = False
    ) -> AsyncIterator[str]:
        self._served.note(route.key)
        yield own_id()
        if is_held:
            await self._released.wait()
        await asyncio.sleep(lasts_s)

    async def release(self) -> None:
        """Ends all requests that are held."""
        self._released.set()
        self._released = asyncio.Event()

    def record_routing_stats(self) -> dict[str, Any]:
        return self._served.stats()

    async def pid(self) -> tuple[str, int]:
        """Called without a route."""
        return own_id(), os.getpid()

    async def check_health(self) -> None:
        """It is always well."""


class Asker:
    """An ingress: `ask` returns which replicas answered."""

    def __init__(self, replicas: DeploymentHandle[Any]) -> None:
        self._replicas = replicas

    async def ask(
        self, turns: Sequence[tuple[str, Route]], lasts_s: float = 0.0, at_once: int = 1000
    ) -> list[str]:
        """Each turn is its request id and route."""
        room = asyncio.Semaphore(at_once)

        async def answer(request_id: str, route: Route) -> str:
            async with room:
                return await self._answer(request_id, route, lasts_s)

        return list(await asyncio.gather(*(answer(*turn) for turn in turns)))

    async def ask_held(self, turns: Sequence[tuple[str, Route]]) -> list[str]:
        """The same, where no request ends before the last one has been answered."""
        handle: Any = self._replicas.options(stream=True)
        asked = [
            handle.generate.remote(Turn(request_id), route=route, is_held=True)
            for request_id, route in turns
        ]
        answers = [str(await anext(each)) for each in asked]
        replicas: Any = self._replicas
        await replicas.broadcast("release").results_async()
        for each in asked:
            assert [answer async for answer in each] == []
        return answers

    async def assigned(self, request_ids: Sequence[str]) -> list[str | None]:
        return [assigned_replica(request_id) for request_id in request_ids]

    async def hits(self) -> Hits:
        return HITS.counted()

    async def pids(self) -> dict[str, int]:
        replicas: Any = self._replicas
        return dict(await replicas.broadcast("pid").results_async())

    async def _answer(self, request_id: str, route: Route, lasts_s: float) -> str:
        handle: Any = self._replicas.options(stream=True)
        answers = handle.generate.remote(Turn(request_id), route=route, lasts_s=lasts_s)
        (replica,) = [each async for each in answers]
        return str(replica)


class Front:
    """Holds the askers."""

    def __init__(self, *askers: DeploymentHandle[Any]) -> None:
        self._askers = askers


def own_id() -> str:
    return str(serve.get_replica_context().replica_id.unique_id)


def fleet_app(num_replicas: int) -> serve.Application:
    options: dict[str, Any] = {
        "ray_actor_options": {"num_cpus": 0},
        "max_ongoing_requests": 1000,
        "health_check_period_s": 1,
    }
    replicas = serve.deployment(
        name="Replica",
        num_replicas=num_replicas,
        request_router_config=router_config(),
        **options,
    )(Replica).bind()
    askers = [serve.deployment(name=name, **options)(Asker).bind(replicas) for name in ASKERS]
    return serve.deployment(name="Front", **options)(Front).bind(*askers)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
