"""What the model's replicas say about themselves: whether they serve, their counters, what makes
their replies."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ray.exceptions import RayError
from ray.serve.exceptions import DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle

from moss_tp.errors import EngineDeadError
from serve_app.groups import ASLEEP, SILENT, GroupState, add_up
from serve_app.remote.cancelled import cancelled_remotely

# A replica answers in milliseconds; so people learn soon that a stopped one does not.
HEALTH_TIMEOUT_S = 4
MAKE_UP_TIMEOUT_S = 1
MAKE_UP_STALE_S = 5.0  # an update may have replaced the replicas since
STRAGGLER_S = 0.5


class ReplicaProbe:
    """A HealthProbe and MakeUp over the handle of MossServer. Where `may_sleep`, there may be no
    replica while nobody asks; the questions here start none. `loading` lists those that are not up
    yet, which Serve does not show."""

    def __init__(
        self,
        handle: DeploymentHandle[Any],
        *,
        may_sleep: bool = False,
        loading: Callable[[], Awaitable[Sequence[GroupState]]] | None = None,
    ) -> None:
        self._handle = handle
        self._loading = loading
        self._may_sleep = may_sleep
        self._made_up: Mapping[str, Any] = {}
        self._asked_at = 0.0
        self._asking: asyncio.Task[None] | None = None

    async def groups(self) -> tuple[GroupState, ...]:
        """Each replica that is up: whether all its ranks live, and no step hangs. Then those that
        load."""
        up, loading = await asyncio.gather(self._up(), self._now_loading())
        names = {group.replica for group in up}
        return *up, *(group for group in loading if group.replica not in names)

    async def _up(self) -> tuple[GroupState, ...]:
        answers = await self._answers("state", lambda state: state.is_serving)
        if answers is None:
            return (ASLEEP,)
        return tuple(SILENT if answer is None else answer for answer in answers)

    async def _now_loading(self) -> Sequence[GroupState]:
        return () if self._loading is None else await self._loading()

    async def is_ready(self) -> bool:
        """Whether some replica can serve: one that responds has loaded its model."""
        return any(group.is_serving for group in await self.groups())

    async def stats(self) -> dict[str, Any]:
        """The stats of all replicas together, and of each. Raises EngineDeadError if none responds
        in time."""
        answers = await self._answers("stats", lambda stats: True)
        if answers is None:
            return add_up([])
        stats = [answer for answer in answers if answer is not None]
        if not stats:
            raise EngineDeadError("no replica of the model answers")
        return add_up(stats)

    async def make_up(self) -> Mapping[str, Any]:
        """What makes the replies of the replicas, which are all alike but while they are replaced.
        Empty while no replica says it, which costs no turn; later as it was a moment ago."""
        now = time.monotonic()
        if self._made_up:
            if now - self._asked_at > MAKE_UP_STALE_S:
                self._asked_at, self._asking = now, asyncio.create_task(self._ask_make_up())
        else:
            with suppress(EngineDeadError, RayError, RayServeException, TimeoutError):
                async with asyncio.timeout(MAKE_UP_TIMEOUT_S):
                    self._made_up = dict(await self._call("make_up"))
                    self._asked_at = now
        return self._made_up

    async def _ask_make_up(self) -> None:
        """Of whoever is there: a model that sleeps is not started."""
        answers = await self._answers("make_up", lambda answer: True)
        self._made_up = next((dict(answer) for answer in answers or () if answer), self._made_up)

    async def _answers(self, method: str, is_good: Callable[[Any], bool]) -> list[Any] | None:
        """See `_ask_all`; none if nobody can be asked. None while there is no replica by choice."""
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                return await self._ask_all(method, is_good)
        except DeploymentUnavailableError:
            return None if self._may_sleep else []
        except (EngineDeadError, RayError, RayServeException, TimeoutError):
            return []

    async def _ask_all(self, method: str, is_good: Callable[[Any], bool]) -> list[Any]:
        """What each replica answers, None for one that fails or is late. Waits long for one that
        is stuck only if no other gives a good answer."""
        broadcast: Any = self._handle.broadcast(method)
        with cancelled_remotely(EngineDeadError("a replica cancelled the call")):
            # Private; the public method returns nothing before the slowest has answered.
            results = await broadcast._fetch_replica_results_async()
        asked = [asyncio.create_task(_answer_of(result)) for result in results]
        try:
            for patience_s in (STRAGGLER_S, HEALTH_TIMEOUT_S - 2 * STRAGGLER_S):
                done, _ = await asyncio.wait(asked, timeout=patience_s)
                answers = [task.result() for task in done]
                if any(answer is not None and is_good(answer) for answer in answers):
                    break
            return [task.result() if task.done() else None for task in asked]
        finally:
            for task in asked:
                task.cancel()

    async def _call(self, method: str) -> Any:
        with cancelled_remotely(EngineDeadError("a replica cancelled the call")):
            return await getattr(self._handle, method).remote()


async def _answer_of(result: Any) -> Any:
    """Of one replica of a broadcast; None if its call raises."""
    try:
        with cancelled_remotely(EngineDeadError("a replica cancelled the call")):
            return await result.get_async()
    except Exception:
        return None
