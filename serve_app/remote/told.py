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

# A request may be why a group was lost. If its engine had just got it both times, it is; otherwise
# it may have been others.
MAX_STRIKES = 2
MAX_LOST_GROUPS = 4
MAX_SENDS = 6  # without a token in between
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
        self._number = 1  # of the next send
        self._num_sends = 1  # since the last token
        self._num_strikes = 0
        self._num_lost_groups = 0

    def add(self, delta: TokenDelta) -> TokenDelta:
        """`delta` as the reader of the whole reply gets it."""
        self._ids += delta.token_ids
        if delta.token_ids:
            self._num_strikes, self._num_sends = 0, 1
        if self._first is None:
            self._first = delta
            return delta
        if self._number == 1:
            return delta
        first = self._first
        return delta._replace(
            num_cached_tokens=first.num_cached_tokens, num_told_tokens=first.num_told_tokens
        )

    @property
    def request(self) -> EngineRequest:
        """For the next replica, with an id of its own: the lost one may still have the other."""
        if self._number == 1:
            return self._request
        request = self._request
        left_s = None if request.deadline_s is None else max(0.0, request.deadline_s - self._age_s)
        # The prompt's logprobs came with the first delta.
        is_begun = self._first is not None
        return replace(
            request,
            request_id=f"{request.request_id}~{self._number}",
            params=replace(request.params, prompt_logprobs=None) if is_begun else request.params,
            deadline_s=left_s,
            is_continuation=request.is_continuation or self._num_lost_groups > 0,
            output_ids=(*request.output_ids, *self._ids),
        )

    @property
    def route(self) -> Route:
        age_s = self._age_s if self._num_lost_groups else None
        return Route(self._key, tuple(self._avoid), self._make_up if self._ids else "", age_s)

    @property
    def _age_s(self) -> float:
        return time.monotonic() - self._sent_at

    def lose(self, lost: ReplicaLostError) -> float:
        """How many seconds to wait before the request is sent once more.

        Raises EngineDeadError, caused by `lost`, if it has to end.
        """
        self._number += 1
        self._num_sends += 1
        self._num_lost_groups += lost.peer is not None
        self._num_strikes += lost.has_begun
        if self._num_strikes >= MAX_STRIKES or self._num_lost_groups >= MAX_LOST_GROUPS:
            num = self._num_lost_groups
            raise EngineDeadError(f"{num} groups were lost with the request") from lost
        if self._num_sends > MAX_SENDS:
            raise EngineDeadError(str(lost)) from lost
        if lost.peer is not None:
            self._make_up = lost.peer.make_up
        if lost.name and lost.name not in self._avoid:
            self._avoid.append(lost.name)
        return FIRST_PAUSE_S * float(1 << (self._num_sends - 2))
