"""The tensor-parallel groups of a server, one a replica of the model: the state of each, and their
counters together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

# `failed`: it says itself that it cannot generate. `silent`: it does not answer. `asleep`: there is
# none, by choice, and the next request starts one. `loading`: it is being started.
State = Literal["serving", "failed", "silent", "asleep", "loading"]


@dataclass(frozen=True)
class GroupState:
    """A group as it was a moment ago. Of one that does not answer, no more is known. A start that
    goes on has a `phase`."""

    state: State
    replica: str | None = None
    ranks: int | None = None
    phase: str | None = None

    @property
    def is_serving(self) -> bool:
        """Whether requests are answered."""
        return self.state in ("serving", "asleep")


SILENT = GroupState("silent")
ASLEEP = GroupState("asleep")


def add_up(replicas: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The stats of all `replicas`: sums of numbers, and lists joined; then each one's own.

    The wait that a request has to expect is the shortest. Text is only a replica's own.
    """
    total: dict[str, Any] = {}
    for stats in replicas:
        for name, value in stats.items():
            if isinstance(value, str | Mapping):
                continue
            known = total.get(name)
            total[name] = value if known is None else _together(name, known, value)
    return {**total, "replicas": list(replicas)}


def _together(name: str, first: Any, second: Any) -> Any:
    if name == "expected_wait_s":
        return min(first, second)
    if isinstance(first, list | tuple):
        return [*first, *second]
    return first + second
