"""Refusals of the engine that still hold, by path and caller."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from serve_app.proxy.demand import Demand

MIN_HOLD_S, MAX_HOLD_S = 0.25, 1.0
HOLD_TIMES = 4  # so a fifth of what is refused gets to the engine, if a refusal takes up to 0.25 s
_MAX_KEPT = 1024


@dataclass(frozen=True)
class Refusal:
    """Of `demand`; it took the engine, and the way there, `took_s`."""

    demand: Demand
    retry_after_s: float
    took_s: float

    @property
    def hold_s(self) -> float:
        """How long it tells what the engine would say. Retry-After is rounded up."""
        hold_s = max(MIN_HOLD_S, HOLD_TIMES * self.took_s, self.retry_after_s - 1)
        return min(hold_s, MAX_HOLD_S)


class Refusals:
    """`num_shed` counts by path what was refused because of them."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._kept: dict[tuple[str, str | None], tuple[Refusal, float]] = {}  # and until when
        self._last: dict[str, tuple[str, Refusal, float]] = {}  # on a path, and its caller
        self.num_shed: Counter[str] = Counter()

    def hold(self, path: str, caller: str) -> list[Refusal]:
        """Those that tell something of a request of `caller` now."""
        now = self._clock()
        found = (self._kept.get((path, whose)) for whose in (caller, None))
        return [kept[0] for kept in found if kept is not None and now < kept[1]]

    def note(self, path: str, caller: str, refusal: Refusal) -> None:
        """Holds for the caller; for all, if another caller's still holds: then of the two the
        harder one."""
        now = self._clock()
        self._keep((path, caller), refusal, now)
        last = self._last.get(path)
        if last is not None and last[0] != caller and now < last[2]:
            if refusal.demand.is_no_easier(last[1].demand):
                self._keep((path, None), refusal, now)
            elif last[1].demand.is_no_easier(refusal.demand):
                self._keep((path, None), last[1], now)
        self._last[path] = caller, refusal, now + refusal.hold_s

    def _keep(self, key: tuple[str, str | None], refusal: Refusal, now: float) -> None:
        """One that is not easier than what is kept tells nothing new."""
        kept = self._kept.get(key)
        if kept is not None and now < kept[1] and not kept[0].demand.is_no_easier(refusal.demand):
            return
        if len(self._kept) >= _MAX_KEPT:
            self._kept = {each: pair for each, pair in self._kept.items() if now < pair[1]}
            self._last = {each: last for each, last in self._last.items() if now < last[2]}
        self._kept[key] = refusal, now + refusal.hold_s
