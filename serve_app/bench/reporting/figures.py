"""What a benchmark found, before it is a table, a JSON file or a picture; and its statistics."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal

Row = dict[str, Any]


@dataclass(frozen=True)
class Chart:
    """`series` are `(x, y)` points by legend; in a "bar" chart x is a label."""

    kind: Literal["bar", "line"]
    x: str
    y: str
    series: dict[str, list[tuple[Any, float]]]


@dataclass(frozen=True)
class Section:
    """One table. All its rows have the same columns."""

    name: str
    title: str
    rows: list[Row]
    charts: list[Chart] = field(default_factory=list)


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all reach or stay under; 0.0 of none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def middle(values: Sequence[float]) -> float:
    """The median; 0.0 of none."""
    return median(values) if values else 0.0


def milliseconds(seconds: float) -> float:
    return round(seconds * 1e3, 3)
