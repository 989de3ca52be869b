"""Which replica has served which keys lately: kept by each replica of its own, and told to routers
in its routing stats; and kept by each router, of all replicas. All of it is bounded."""

import time
from array import array
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from cluster.routing.hashing import hash_of

MAX_SERVED = 2048  # keys of one replica: 16 KiB of its stats
MAX_ROUTED = 16384  # keys of one router
RECENT_S = 300.0  # sessions that have had a turn within it count as load
CONFIRMED_S = 10.0  # by then a replica's stats have what it serves


class ServedKeys:
    """The keys that one replica has served. `make_up` is the digest of its own."""

    def __init__(self, make_up: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self._make_up = make_up
        self._clock = clock
        self._served: OrderedDict[int, float] = OrderedDict()

    def note(self, key: str) -> None:
        """It serves a request of `key`; "" is none."""
        if not key:
            return
        hashed = hash_of(key)
        self._served[hashed] = self._clock()
        self._served.move_to_end(hashed)
        if len(self._served) > MAX_SERVED:
            self._served.popitem(last=False)

    def stats(self) -> dict[str, Any]:
        """The routing stats of the replica; equal as long as the same sessions go on."""
        since = self._clock() - RECENT_S
        sessions = sum(at >= since for at in self._served.values())
        keys = array("Q", sorted(self._served)).tobytes()
        return {"keys": keys, "sessions": sessions, "make_up": self._make_up}


@dataclass(frozen=True)
class _Report:
    """The routing stats of a replica, read."""

    stats: Mapping[str, Any]
    keys: frozenset[int]
    sessions: int
    make_up: str


_NOTHING = _Report({}, frozenset(), 0, "")


class Residency:
    """What a router knows: the replicas' stats, and where it has sent keys itself since."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._reports: dict[str, _Report] = {}
        self._routed: OrderedDict[int, str] = OrderedDict()
        # New sessions of a replica that its stats do not have yet, by the time of their turn.
        self._unconfirmed: dict[str, dict[int, float]] = {}
        self._placed: deque[tuple[float, str]] = deque()  # new sessions, and when
        self._num_placed: Counter[str] = Counter()

    def update(self, replica: str, stats: Mapping[str, Any]) -> None:
        """`stats` are {} before the first ones of a replica."""
        if stats != self._report(replica).stats:
            self._reports[replica] = _read(stats)
        keys, now = self._report(replica).keys, self._clock()
        self._unconfirmed[replica] = {
            key: at
            for key, at in self._unconfirmed.get(replica, {}).items()
            if key not in keys and now - at < CONFIRMED_S
        }

    def keep(self, replicas: Collection[str]) -> None:
        """Forgets what others than `replicas` have told."""
        kept = set(replicas)
        self._reports = {name: told for name, told in self._reports.items() if name in kept}
        self._unconfirmed = {name: new for name, new in self._unconfirmed.items() if name in kept}

    def note(self, key: int, replica: str) -> None:
        """A request of `key` goes to `replica`."""
        if not self._is_known(key):
            self._placed.append((self._clock(), replica))
            self._num_placed[replica] += 1
        self._routed[key] = replica
        self._routed.move_to_end(key)
        if len(self._routed) > MAX_ROUTED:
            oldest, at = self._routed.popitem(last=False)
            self._unconfirmed.get(at, {}).pop(oldest, None)
        if key not in self._report(replica).keys:
            self._unconfirmed.setdefault(replica, {})[key] = self._clock()

    def has_served(self, key: int, replica: str) -> bool:
        return self._routed.get(key) == replica or key in self._report(replica).keys

    def sessions(self, replica: str) -> int:
        """How many keys it has served lately."""
        return self._report(replica).sessions + len(self._unconfirmed.get(replica, ()))

    def placed(self, replica: str) -> int:
        """How many new sessions this router has sent there within CONFIRMED_S."""
        since = self._clock() - CONFIRMED_S
        while self._placed and self._placed[0][0] < since:
            _, gone = self._placed.popleft()
            self._num_placed[gone] -= 1
        return self._num_placed[replica]

    def make_up(self, replica: str) -> str:
        return self._report(replica).make_up

    def _is_known(self, key: int) -> bool:
        return key in self._routed or any(key in each.keys for each in self._reports.values())

    def _report(self, replica: str) -> _Report:
        return self._reports.get(replica, _NOTHING)


def _read(stats: Mapping[str, Any]) -> _Report:
    keys = array("Q")
    keys.frombytes(stats.get("keys", b""))
    sessions, make_up = stats.get("sessions", 0), stats.get("make_up", "")
    return _Report(stats, frozenset(keys), sessions, make_up)
