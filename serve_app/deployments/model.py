"""The model behind a deployment handle: one replica is one tensor-parallel group.

Rank 0 runs in this process, the others are actors in the replica's placement group. A group that
has lost a rank cannot serve, so the process exits at once and Serve starts a new replica. It
handles token ids and deltas, not chats.
"""

import asyncio
import os
import sys
import time
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from ray import serve

from cluster.channel.address import Target
from cluster.ranks.group import WorkerGroup
from cluster.routing.route import ANYWHERE, Route
from moss_tp.engine.request import EngineRequest
from moss_tp.errors import EngineDeadError
from serve_app.deployments.make_up import replica_make_up
from serve_app.deployments.progress import Progress
from serve_app.deployments.replies import Replies
from serve_app.deployments.start_up import StartUp, announced
from serve_app.groups import GroupState, State
from serve_app.observe.engine import engine_metrics
from serve_app.observe.logs import configure_logs
from serve_app.observe.publisher import Publisher
from serve_app.observe.tracing import span
from serve_app.settings import ServeSettings

if TYPE_CHECKING:
    from moss_tp.engine.async_engine import AsyncEngine

RANK_LOST_STATUS = 13


class MossServer:
    """A replica. Constructing it loads the model on every rank."""

    def __init__(self, settings: ServeSettings) -> None:
        configure_logs(settings.log_format, settings.log_file)
        self._name = serve.get_replica_context().replica_id.unique_id
        self._start = StartUp()
        with announced(settings.store, partial(self._loading, settings.tp)):
            self._engine, self._rank_pids = self._load(settings)
        self._progress = Progress(settings.engine_config(settings.model).step_limit_s)
        self._make_up = replica_make_up(settings)
        self._replies = Replies(self._make_up, self._is_well)
        model, replica = settings.model_names[0], self._name
        self._publisher = Publisher(
            settings.store, "group", lambda: engine_metrics(self._engine.stats(), model, replica)
        )

    async def generate(
        self, request: EngineRequest, *, target: Target, route: Route = ANYWHERE
    ) -> None:
        """Sends the deltas of one request to `target`; cancelling it aborts the request within a
        step.

        Raises what `AsyncEngine.generate` raises.
        """
        attributes = {"moss.prompt_tokens": len(request.prompt_ids)}
        with span("engine", request.traceparent, attributes):
            deltas = self._engine.generate(request)
            await self._replies.send(deltas, request, target, route)

    async def check_health(self) -> None:
        """The health check of Serve and `/health`. Raises EngineDeadError if it cannot generate."""
        self._check()
        self._publisher.start()  # here, where an event loop runs

    async def state(self) -> GroupState:
        """Whether it can generate, of which `check_health` raises why not."""
        state: State = "serving" if self._is_well() else "failed"
        return GroupState(state, self._name, len(self._rank_pids))

    def record_routing_stats(self) -> dict[str, Any]:
        """Serve asks for it, and tells all routers."""
        return self._replies.served.stats()

    async def make_up(self) -> dict[str, Any]:
        """What makes this replica's replies; see `replica_make_up`."""
        return self._make_up

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """The figures of a `cluster.scaling.policy.Load`, as Serve asks for them."""
        return asdict(self._engine.load())

    async def stats(self) -> dict[str, Any]:
        """Its part of `/stats`. The first of `rank_pids` is the replica itself."""
        wait_s = await asyncio.to_thread(self._engine.expected_wait_s)
        stats = asdict(self._engine.stats())
        stats["waits"] = stats["waits"]._asdict()
        state = await self.state()
        own = {"replica": state.replica, "state": state.state, "rank_pids": self._rank_pids}
        return {**own, **stats, "expected_wait_s": wait_s, "start_s": self._start.phases}

    def _load(self, settings: ServeSettings) -> "tuple[AsyncEngine, tuple[int, ...]]":
        group = WorkerGroup(settings.tp, settings.device)
        with self._start.phase("imports"):
            # Of torch, which takes seconds, while the other ranks import it too.
            from serve_app.deployments.engine import start_engine

        return start_engine(settings, group, _leave, self._start)

    def _loading(self, ranks: int) -> GroupState:
        return GroupState("loading", self._name, ranks, self._start.current)

    def _check(self) -> None:
        if not self._engine.is_alive:
            raise EngineDeadError("the engine has ended")
        if (late := self._engine.late_step) is not None:
            raise EngineDeadError(late)
        self._progress.check(self._engine.stats(), time.monotonic())

    def _is_well(self) -> bool:
        try:
            self._check()
        except EngineDeadError:
            return False
        return True

    def __del__(self) -> None:
        """Serve calls this when a replica has drained, so that the ranks shut down in order."""
        if hasattr(self, "_publisher"):
            self._publisher.end()
        if hasattr(self, "_engine"):
            self._engine.close()


def _leave(reason: str) -> NoReturn:
    """Exits without clean-up, since the other ranks may hang in a collective forever."""
    print(f"leaving, for Serve to start a new group: {reason}", file=sys.stderr, flush=True)
    os._exit(RANK_LOST_STATUS)
