"""The router of model replicas, as Serve runs it in every process that has a handle to them.

It takes a request's `route` from its keyword arguments and sends it where `policy` says. Serve's
own loop would ask replicas for the lengths of their queues, which a busy one answers late, and
would match replicas to requests by an id that calls of one HTTP request share. Here each request
is on its own, and waits only where no replica has room.
"""

import asyncio
import time
from collections.abc import Sequence
from itertools import count
from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from cluster.routing.assigned import ASSIGNMENTS
from cluster.routing.contract import check_contract
from cluster.routing.hashing import hash_of
from cluster.routing.hits import HITS
from cluster.routing.loads import Loads
from cluster.routing.policy import Candidate, ranked
from cluster.routing.residency import Residency
from cluster.routing.route import ANYWHERE, Route

# How long a replica is avoided: one that has died is in Serve's list for a moment more, one that
# could not be reached or was silent may come back.
DEAD_S, SILENT_S = 60.0, 5.0
RETRY_S = 0.05


class MossRouter(RequestRouter):
    """One for each process and deployment handle. Runs in one event loop."""

    def initialize_state(self, **kwargs: Any) -> None:
        """Raises ConfigError where Ray is another than it was written for."""
        check_contract()
        self._residency = Residency()
        self._loads = Loads()
        self._numbers = count()  # requests that are equal get different ones
        self._suspects: dict[str, float] = {}  # replicas to avoid, and until when

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        super().update_replicas(replicas)
        for replica in replicas:
            self._residency.update(replica.replica_id.unique_id, replica.routing_stats or {})
        for known in (self._residency, self._loads):
            known.keep([replica.replica_id.unique_id for replica in replicas])

    def on_send_request(self, replica_id: ReplicaID) -> None:
        super().on_send_request(replica_id)
        self._loads.sent(replica_id.unique_id)

    def on_new_queue_len_info(self, replica_id: ReplicaID, num_ongoing_requests: int) -> None:
        super().on_new_queue_len_info(replica_id, num_ongoing_requests)
        self._loads.told(replica_id.unique_id, num_ongoing_requests)

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        super().on_request_completed(replica_id, internal_request_id)
        self._loads.ended(replica_id.unique_id)

    def on_replica_actor_died(self, replica_id: ReplicaID) -> None:
        super().on_replica_actor_died(replica_id)
        self._suspect(replica_id.unique_id, DEAD_S)

    def on_replica_actor_unavailable(self, replica_id: ReplicaID) -> None:
        super().on_replica_actor_unavailable(replica_id)
        self._suspect(replica_id.unique_id, SILENT_S)

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """For the parts of Serve that choose a replica without a request."""
        route = ANYWHERE if pending_request is None else _route_of(pending_request)
        return [[replica] for replica in self._ranked(candidate_replicas, route, "")]

    async def _choose_replica_for_request(
        self, pending_request: PendingRequest, *, is_retry: bool = False
    ) -> RunningReplica:
        """The replica that gets the request, once one has room."""
        request = pending_request.args[0] if pending_request.args else None
        request_id = str(getattr(request, "request_id", ""))
        route = _route_of(pending_request)
        if not is_retry:
            for replica_id in route.avoid:
                self._suspect(replica_id, SILENT_S)
        attempt = 0
        while (replica := await self._pick(route, request_id, is_retry)) is None:
            await asyncio.sleep(self._compute_backoff_s(attempt))
            attempt += 1
        self._record_queue_wait_time(pending_request)
        self._note(route, request, replica, is_retry)
        if request_id:
            ASSIGNMENTS.note(request_id, replica.replica_id.unique_id)
        return replica

    async def _pick(self, route: Route, request_id: str, is_retry: bool) -> RunningReplica | None:
        """The best one that has room, once there are replicas."""
        while not self.curr_replicas:
            self._replicas_updated_event.clear()
            await self._replicas_updated_event.wait()
        replicas = list(self.curr_replicas.values())
        if is_retry and all(self._is_suspect(each.replica_id.unique_id) for each in replicas):
            await asyncio.sleep(RETRY_S)  # for Serve to notice
            replicas = list(self.curr_replicas.values())
        best = self._ranked(replicas, route, request_id)
        return next((replica for replica in best if self._has_room(replica)), None)

    def _ranked(
        self, replicas: Sequence[RunningReplica], route: Route, request_id: str
    ) -> list[RunningReplica]:
        key = hash_of(route.key or f"{request_id}{next(self._numbers)}")
        by_id = {replica.replica_id.unique_id: replica for replica in replicas}
        suspects = {replica for replica in by_id if self._is_suspect(replica)}
        order = ranked(
            [self._candidate(replica, key) for replica in replicas],
            key,
            has_key=bool(route.key),
            avoid=suspects.union(route.avoid),
            make_up=route.make_up,
        )
        return [by_id[replica] for replica in order]

    def _candidate(self, replica: RunningReplica, key: int) -> Candidate:
        name, known = replica.replica_id.unique_id, self._residency
        return Candidate(
            name,
            load=self._loads.of(name),
            sessions=known.sessions(name),
            placed=known.placed(name),
            is_home=known.has_served(key, name),
            make_up=known.make_up(name),
        )

    def _has_room(self, replica: RunningReplica) -> bool:
        return self._loads.of(replica.replica_id.unique_id) < replica.max_ongoing_requests

    def _note(self, route: Route, request: Any, replica: RunningReplica, is_retry: bool) -> None:
        """Remembers where the key is, and counts a turn: once, by its first pass."""
        if not route.key:
            return
        key, name = hash_of(route.key), replica.replica_id.unique_id
        goes_on = getattr(request, "is_continuation", False) or getattr(request, "output_ids", ())
        if not (is_retry or route.avoid or goes_on):
            HITS.note(self._residency.has_served(key, name))
        self._residency.note(key, name)

    def _suspect(self, replica: str, seconds: float) -> None:
        now = time.monotonic()
        self._suspects = {name: until for name, until in self._suspects.items() if until > now}
        self._suspects[replica] = max(now + seconds, self._suspects.get(replica, 0.0))

    def _is_suspect(self, replica: str) -> bool:
        return self._suspects.get(replica, 0.0) > time.monotonic()


def _route_of(pending_request: PendingRequest) -> Route:
    route = pending_request.kwargs.get("route")
    return route if isinstance(route, Route) else ANYWHERE
