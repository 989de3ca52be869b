"""Collectors that prometheus_client lacks: a histogram that counts a value several times at once,
and counters of what an ingress' router counts on a thread of its own."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from math import inf
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector


class WeightedHistogram(Collector):
    """Values up to each of `bounds`, which ascend. For one thread."""

    def __init__(self, name: str, help: str, bounds: Sequence[float], model_name: str) -> None:
        self._name = name
        self._help = help
        self._bounds = tuple(bounds)
        self._model_name = model_name
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float, weight: int) -> None:
        """Counts `value` `weight` times."""
        self._counts[bisect_left(self._bounds, value)] += weight
        self._sum += value * weight

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(self._name, self._help, labels=["model_name"])
        buckets = bucket_samples(self._bounds, self._counts)
        family.add_metric([self._model_name], buckets, self._sum)
        yield family


def bucket_samples(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    """The samples of a histogram's buckets: `counts` has one more for values above all bounds."""
    names = [("+Inf" if bound == inf else str(float(bound))) for bound in (*bounds, inf)]
    return list(zip(names, map(float, accumulate(counts)), strict=True))


class Routed(Protocol):
    """What a router has counted."""

    @property
    def turns(self) -> int:
        """First passes of turns whose chat is known."""
        ...

    @property
    def hits(self) -> int:
        """Those of them that went to a replica that had served their chat."""
        ...

    @property
    def moves(self) -> int:
        """Passes that another replica went on with, since theirs was lost."""
        ...


class NothingRouted:
    turns = hits = moves = 0


class RoutedCollector(Collector):
    """`counted` may be called from any thread."""

    def __init__(self, model_name: str, counted: Callable[[], Routed]) -> None:
        self._model_name = model_name
        self._counted = counted

    def collect(self) -> Iterator[CounterMetricFamily]:
        counted = self._counted()
        yield self._family(
            "moss:session_affinity_queries", "Turns that were routed by their chat.", counted.turns
        )
        yield self._family(
            "moss:session_affinity_hits",
            "Turns routed to a replica that has served their chat.",
            counted.hits,
        )
        yield self._family(
            "moss:passes_resumed", "Passes whose group was lost, sent to another.", counted.moves
        )

    def _family(self, name: str, help: str, value: int) -> CounterMetricFamily:
        family = CounterMetricFamily(name, help, labels=["model_name"])
        family.add_metric([self._model_name], value)
        return family
