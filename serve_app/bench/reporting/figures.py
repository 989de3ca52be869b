"""The results of a benchmark as data: tables, charts and the statistics they are made of."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Row = dict[str, Any]


@dataclass(frozen=True)
class Chart:
    """`series` maps a legend to `(x, y)` points; in a "bar" chart x is a label."""

    kind: Literal["bar", "line"]
    x: str
    y: str
    series: dict[str, list[tuple[Any, float]]]


@dataclass(frozen=True)
class Section:
    """One table and its charts. All rows have the same columns."""

    name: str
    title: str
    rows: list[Row]
    charts: list[Chart] = field(default_factory=list)


def quantile(values: Sequence[float], q: float) -> float:
    """The smallest value such that at least a share `q` of all is no larger; 0.0 if empty."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[max(0, -int(-q * len(ordered) // 1) - 1)]


def median(values: Sequence[float]) -> float:
    """The median; 0.0 if empty."""
    return statistics.median(values) if values else 0.0


def milliseconds(seconds: float) -> float:
    """Rounded to a microsecond."""
    return round(seconds * 1e3, 3)
