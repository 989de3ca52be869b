"""Replicas whose number the policy decides, and a clock: what becomes of them under a load."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from cluster.scaling.policy import TURN_TOKENS, Load, Pending, Scaling, Scene, decide

TICK_S = 0.5
NUM_SLOTS, NUM_BLOCKS = 64, 1000
FULL = Load(NUM_SLOTS, 0.0, NUM_SLOTS * TURN_TOKENS, NUM_BLOCKS, NUM_BLOCKS, NUM_SLOTS)


def loads_of(needed: float, num_ready: int, block_share: float = 0.0) -> list[Load]:
    """Of replicas whose need together is `needed`; the blocks have that share of it."""
    tokens = needed * NUM_SLOTS * TURN_TOKENS / num_ready
    held = needed * block_share * NUM_BLOCKS / num_ready
    num = tokens / TURN_TOKENS / 2  # long ones
    return [Load(num, tokens / 4, tokens * 3 / 4, held, NUM_BLOCKS, NUM_SLOTS)] * num_ready


@dataclass
class Simulation:
    """A replica takes `start_s` to be ready. `history` is how many there should be at each tick."""

    scaling: Scaling
    wanted: int = 1
    start_s: float = 5.0
    pending: Pending = field(default_factory=Pending)
    now_s: float = 1e9
    history: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._ready_at = [self.now_s] * self.wanted

    @property
    def num_ready(self) -> int:
        return sum(at <= self.now_s for at in self._ready_at)

    def run(self, needs: Iterable[float]) -> list[int]:
        """Under a need a tick. Returns `history`."""
        for needed in needs:
            ready = self.num_ready
            loads = loads_of(needed, ready) if ready else []
            scene = Scene(self.wanted, ready, loads, 0 if ready else needed, self.now_s)
            self.wanted, self.pending = decide(self.scaling, scene, self.pending)
            self._ready_at = self._ready_at[: self.wanted]
            while len(self._ready_at) < self.wanted:
                self._ready_at.append(self.now_s + self.start_s)
            self.history.append(self.wanted)
            self.now_s += TICK_S
        return self.history

    def run_for(self, needed: float, seconds: float) -> list[int]:
        return self.run([needed] * int(seconds / TICK_S))


def num_turns(history: list[int]) -> int:
    """How often the number changed its direction."""
    steps = [b - a for a, b in pairwise(history) if a != b]
    return sum((a > 0) != (b > 0) for a, b in pairwise(steps))
