"""Two routers that place new sessions within one second, on a simulated clock: the replicas' stats
come late, each at a time of its own, so neither router knows what the other has just done."""

from collections import Counter
from dataclasses import dataclass, field
from random import Random

from cluster.routing.hashing import hash_of
from cluster.routing.policy import MAX_SHARE, Candidate, ranked
from cluster.routing.residency import Residency, ServedKeys

NUM_SESSIONS, REPLICAS = 64, ("a", "b", "c")
STATS_EVERY_S, LONGEST_DELAY_S = 1.0, 0.8
NUM_RUNS = 200


@dataclass
class Burst:
    """One run: how many sessions each replica has when all are placed."""

    random: Random
    counts_own: bool
    now: float = 0.0
    sessions: Counter[str] = field(default_factory=Counter)

    def run(self) -> "Burst":
        self._served = {name: ServedKeys(clock=lambda: self.now) for name in REPLICAS}
        self._routers = [Residency(lambda: self.now) for _ in range(2)]
        new = [(self.random.random(), "", number) for number in range(NUM_SESSIONS)]
        told = [(self.random.random() * STATS_EVERY_S, name, 0) for name in REPLICAS]
        late: list[tuple[float, str, int, dict[str, object]]] = []
        for self.now, name, number in sorted([*new, *told]):
            for _, replica, router, stats in (each for each in late if each[0] <= self.now):
                self._routers[router].update(replica, stats)
            late = [each for each in late if each[0] > self.now]
            if name:
                for router in range(2):
                    due = self.now + self.random.random() * LONGEST_DELAY_S
                    late.append((due, name, router, self._served[name].stats()))
            else:
                self._place(number)
        return self

    def _place(self, number: int) -> None:
        key, known = f"{self.random.random()}", self._routers[number % 2]
        candidates = [
            Candidate(
                name,
                sessions=known.sessions(name),
                placed=known.placed(name) if self.counts_own else 0,
            )
            for name in REPLICAS
        ]
        best = ranked(candidates, hash_of(key))[0]
        known.note(hash_of(key), best)
        self._served[best].note(key)
        self.sessions[best] += 1


def uneven(counts_own: bool) -> int:
    """In how many runs a replica got more than its share."""
    bursts = [Burst(Random(seed), counts_own).run() for seed in range(NUM_RUNS)]
    share = MAX_SHARE * NUM_SESSIONS / len(REPLICAS)
    return sum(max(burst.sessions.values()) > share for burst in bursts)


def test_together_they_keep_to_the_share() -> None:
    assert uneven(counts_own=True) == 0


def test_they_would_not_if_each_counted_only_what_it_knows_of_all() -> None:
    assert uneven(counts_own=False) > 0
