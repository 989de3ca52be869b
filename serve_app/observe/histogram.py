"""A histogram that counts a value several times at once, which prometheus_client's does not."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from math import inf

from prometheus_client.core import HistogramMetricFamily, Metric
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
