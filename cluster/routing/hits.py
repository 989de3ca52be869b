"""How many turns this process has routed, how many of them to where their key was served, and how
many requests had to go on elsewhere."""

from dataclasses import dataclass, replace
from threading import Lock


@dataclass(frozen=True)
class Hits:
    turns: int = 0
    hits: int = 0
    moves: int = 0


class HitCounter:
    """Thread-safe: routers run on a thread of their own."""

    def __init__(self) -> None:
        self._counted = Hits()
        self._lock = Lock()

    def note(self, is_hit: bool) -> None:
        """One more turn with a key."""
        with self._lock:
            counted = self._counted
            self._counted = replace(counted, turns=counted.turns + 1, hits=counted.hits + is_hit)

    def note_move(self) -> None:
        """One request whose replica was lost goes to another."""
        with self._lock:
            self._counted = replace(self._counted, moves=self._counted.moves + 1)

    def counted(self) -> Hits:
        return self._counted


HITS = HitCounter()
