"""What the model's replicas say about themselves: whether they serve, their counters, what makes
their replies."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from moss_tp.errors import EngineDeadError
from serve_app.remote.cancelled import cancelled_remotely

# A replica answers in milliseconds; so people learn soon that a stopped one does not.
HEALTH_TIMEOUT_S = 4
MAKE_UP_TIMEOUT_S = 1
STRAGGLER_S = 0.5


class ReplicaProbe:
    """A HealthProbe and MakeUp over the handle of MossServer."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle
        self._made_up: Mapping[str, Any] = {}

    async def groups(self) -> tuple[bool, ...]:
        """Whether each replica that is up can serve: all its ranks live, and no step hangs."""
        with suppress(EngineDeadError, RayError, RayServeException, TimeoutError):
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                return await self._groups()
        return ()

    async def is_ready(self) -> bool:
        """Whether some replica can serve: one that responds has loaded its model."""
        return any(await self.groups())

    async def stats(self) -> dict[str, Any]:
        """The stats of one replica. Raises EngineDeadError if none responds in time."""
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                stats: dict[str, Any] = await self._call("stats")
        except (RayError, RayServeException, TimeoutError) as error:
            raise EngineDeadError("no replica of the model answers") from error
        return stats

    async def make_up(self) -> Mapping[str, Any]:
        """What makes the replies of the replicas, which are all alike; asked once. Empty while no
        replica says it, which costs no turn."""
        if not self._made_up:
            with suppress(EngineDeadError, RayError, RayServeException, TimeoutError):
                async with asyncio.timeout(MAKE_UP_TIMEOUT_S):
                    self._made_up = dict(await self._call("make_up"))
        return self._made_up

    async def _groups(self) -> tuple[bool, ...]:
        """Waits for one that is stuck only if no other can serve."""
        broadcast: Any = self._handle.broadcast("check_health")
        with cancelled_remotely(EngineDeadError("a replica cancelled the call")):
            # Private; the public method returns nothing before the slowest has answered.
            answers = await broadcast._fetch_replica_results_async()
        checks = [asyncio.create_task(_has_succeeded(answer)) for answer in answers]
        try:
            for patience_s in (STRAGGLER_S, HEALTH_TIMEOUT_S - 2 * STRAGGLER_S):
                done, _ = await asyncio.wait(checks, timeout=patience_s)
                if any(check.result() for check in done):
                    break
            return tuple(check.done() and check.result() for check in checks)
        finally:
            for check in checks:
                check.cancel()

    async def _call(self, method: str) -> Any:
        with cancelled_remotely(EngineDeadError("a replica cancelled the call")):
            return await getattr(self._handle, method).remote()


async def _has_succeeded(answer: Any) -> bool:
    """Whether the call behind one result of a broadcast raised nothing."""
    try:
        with cancelled_remotely(EngineDeadError("a replica cancelled the call")):
            await answer.get_async()
    except Exception:
        return False
    return True
