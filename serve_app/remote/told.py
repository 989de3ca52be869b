"""What of a reply has come in, so that another replica can go on with it.

The ids that have come in are the truth: what a lost replica had sampled and not sent is sampled
again, with the same seed and hence alike.
"""

import time
from dataclasses import replace

from cluster.routing.route import Route
from moss_tp.engine.outputs import TokenDelta
from moss_tp.engine.request import EngineRequest
from moss_tp.errors import EngineDeadError
from serve_app.remote.attempt import ReplicaLostError

# A request that was in so many groups when they were lost may be why they were.
MAX_LOST_GROUPS = 2
MAX_SENDS = 6
FIRST_PAUSE_S = 0.05


class Told:
    """Of one request, which is given to replicas by way of `key`."""

    def __init__(self, request: EngineRequest, key: str) -> None:
        self._request = request
        self._key = key
        self._sent_at = time.monotonic()
        self._ids: list[int] = []
        self._first: TokenDelta | None = None
        self._avoid: list[str] = []
        self._make_up = ""
        self._num_sends = 1
        self._num_lost_groups = 0

    def add(self, delta: TokenDelta) -> TokenDelta:
        """`delta` as the reader of the whole reply gets it."""
        self._ids += delta.token_ids
        if self._first is None:
            self._first = delta
            return delta
        if self._num_sends == 1:
            return delta
        first = self._first
        return delta._replace(
            num_cached_tokens=first.num_cached_tokens, num_told_tokens=first.num_told_tokens
        )

    @property
    def request(self) -> EngineRequest:
        """For the next replica, with an id of its own: the lost one may still have the other."""
        if self._num_sends == 1:
            return self._request
        request, waited_s = self._request, time.monotonic() - self._sent_at
        left_s = None if request.deadline_s is None else max(0.0, request.deadline_s - waited_s)
        # The prompt's logprobs came with the first delta.
        is_begun = self._first is not None
        return replace(
            request,
            request_id=f"{request.request_id}~{self._num_sends}",
            params=replace(request.params, prompt_logprobs=None) if is_begun else request.params,
            deadline_s=left_s,
            output_ids=(*request.output_ids, *self._ids),
        )

    @property
    def route(self) -> Route:
        return Route(self._key, tuple(self._avoid), self._make_up if self._ids else "")

    def lose(self, lost: ReplicaLostError) -> float:
        """How many seconds to wait before the request is sent once more.

        Raises EngineDeadError, caused by `lost`, if it has to end.
        """
        self._num_lost_groups += lost.peer is not None
        self._num_sends += 1
        if self._num_lost_groups >= MAX_LOST_GROUPS:
            raise EngineDeadError(f"{MAX_LOST_GROUPS} groups were lost with the request") from lost
        if self._num_sends > MAX_SENDS:
            raise EngineDeadError(str(lost)) from lost
        if lost.peer is not None:
            self._make_up = lost.peer.make_up
        if lost.name and lost.name not in self._avoid:
            self._avoid.append(lost.name)
        return FIRST_PAUSE_S * float(1 << (self._num_sends - 2))
