"""Which replica got a request, as this process's routers know it; whoever sent it may ask."""

from collections import OrderedDict
from threading import Lock

_MAX_REQUESTS = 16384


class Assignments:
    """The latest `max_requests` assignments. Thread-safe: routers run on a thread of their own."""

    def __init__(self, max_requests: int = _MAX_REQUESTS) -> None:
        self._max_requests = max_requests
        self._replicas: OrderedDict[str, str] = OrderedDict()
        self._lock = Lock()

    def note(self, request_id: str, replica: str) -> None:
        """`replica` gets the request, perhaps instead of an earlier one."""
        with self._lock:
            self._replicas[request_id] = replica
            self._replicas.move_to_end(request_id)
            if len(self._replicas) > self._max_requests:
                self._replicas.popitem(last=False)

    def replica_of(self, request_id: str) -> str | None:
        with self._lock:
            return self._replicas.get(request_id)


ASSIGNMENTS = Assignments()


def assigned_replica(request_id: str) -> str | None:
    """The full unique id of the replica that a router of this process has last sent the request
    to, accepted or not; None if it waits for one, or went out too long ago."""
    return ASSIGNMENTS.replica_of(request_id)
