"""Random draws for the demo data, split into a training part and a held-out part.

Whether a value (a name, a city, an expression) is held out depends on a hash of its text, so the
two parts are disjoint for every seed. It does not depend on language or conversations.
"""

import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")
_HELD_OUT_ONE_IN = 10


def is_held_out(value: str) -> bool:
    """Whether `value` is reserved for the evaluation (one value in ten is)."""
    return zlib.crc32(value.encode()) % _HELD_OUT_ONE_IN == 0


class Draw:
    """A seeded random source. With `held_out`, `fresh` gives held-out values only, else none."""

    def __init__(self, seed: int | str, held_out: bool = False) -> None:
        self.rng = random.Random(seed)
        self.held_out = held_out

    def choice(self, options: Sequence[T]) -> T:
        return self.rng.choice(options)

    def phrase(self, options: Sequence[str]) -> str:
        """One entry of a phrase table."""
        return self.rng.choice(options)

    def weighted(self, options: Mapping[T, float]) -> T:
        """One key, with a probability proportional to its value."""
        return self.rng.choices(list(options), list(options.values()))[0]

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def integer(self, low: int, high: int) -> int:
        """A uniform integer, both ends included."""
        return self.rng.randint(low, high)

    def fresh(self, make: Callable[[], T], kind: str = "") -> T:
        """Calls `make` until its value, as one of `kind`, is held out if this draw is, else not."""
        while True:
            value = make()
            if is_held_out(f"{kind}{value}") == self.held_out:
                return value
