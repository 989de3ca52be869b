"""How many turns this process has routed, and how many of them to where their key was served."""

from dataclasses import dataclass
from threading import Lock


@dataclass(frozen=True)
class Hits:
    turns: int = 0
    hits: int = 0


class HitCounter:
    """Thread-safe: routers run on a thread of their own."""

    def __init__(self) -> None:
        self._counted = Hits()
        self._lock = Lock()

    def note(self, is_hit: bool) -> None:
        """One more turn with a key."""
        with self._lock:
            self._counted = Hits(self._counted.turns + 1, self._counted.hits + is_hit)

    def counted(self) -> Hits:
        return self._counted


HITS = HitCounter()
