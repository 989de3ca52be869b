"""A figure beside its limit and its bar, on one line."""

from dataclasses import dataclass
from math import isfinite
from typing import Literal


@dataclass(frozen=True)
class Verdict:
    """`limit` is what this card could do, measured in the same call: then the bar is a share of
    it. Without a limit the bar is for the figure itself. `sense` says on which side of the bar the
    good values are. Without a bar the figure is for information."""

    name: str
    figure: float
    unit: str = ""
    limit: float | None = None
    bar: float | None = None
    sense: Literal["at least", "at most"] = "at least"
    note: str = ""

    @property
    def share(self) -> float | None:
        return self.figure / self.limit if self.limit else None

    @property
    def passes(self) -> bool:
        if self.bar is None:
            return True
        judged = self.figure if self.share is None else self.share
        return judged >= self.bar if self.sense == "at least" else judged <= self.bar

    @property
    def line(self) -> str:
        words = [f"{self.name}: {_number(self.figure)}", self.unit]
        if self.share is not None and self.limit is not None:
            words.append(f"of {_number(self.limit)} ({self.share:.1%})")
        if self.bar is not None:
            bar = f"{self.bar:.0%}" if self.share is not None else _number(self.bar)
            words.append(f"| {self.sense} {bar}: {'pass' if self.passes else 'MISS'}")
        if self.note:
            words.append(f"({self.note})")
        return " ".join(word for word in words if word)


def broken(name: str, reason: str) -> Verdict:
    """A part that did not come to its end."""
    return Verdict(name, 0, bar=1, note=reason)


def _number(value: float) -> str:
    if isfinite(value) and value == int(value) and abs(value) < 1e7:
        return f"{int(value):,}"
    return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
