"""How many replicas there may be. It knows no Ray."""

import re
from dataclasses import dataclass
from typing import Any

_TEXT = re.compile(r"(\d{1,4})(?:\.\.(\d{1,4}))?")


@dataclass(frozen=True)
class Replicas:
    """At least and at most as many. None at all only where there may be more: the first request
    then waits while one starts."""

    least: int = 1
    most: int = 1

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that cannot be."""
        if not 0 <= self.least <= self.most or self.most < 1:
            raise ValueError(f"not a number of replicas, like 2 or 1..4: {self}")

    @classmethod
    def of(cls, value: Any) -> "Replicas":
        """`2`, `"2"` and `"1..4"`. Raises ValueError for anything else."""
        if isinstance(value, cls):
            return value
        found = None if isinstance(value, bool) else _TEXT.fullmatch(str(value).strip())
        if found is None:
            raise ValueError(f"not a number of replicas, like 2 or 1..4: {value}")
        least, most = found.groups()
        return cls(int(least), int(most or least))

    @property
    def is_fixed(self) -> bool:
        return self.least == self.most

    @property
    def at_start(self) -> int:
        """At least one, so that a model that cannot load fails at once."""
        return max(1, self.least)

    def clip(self, number: int) -> int:
        """The nearest number that may be."""
        return min(max(number, self.least), self.most)

    def __str__(self) -> str:
        return str(self.least) if self.is_fixed else f"{self.least}..{self.most}"
