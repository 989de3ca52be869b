"""The samples of one process as bytes, and the sum of those of many.

Counters and histograms of processes that have ended still count, gauges do not.
"""

import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import msgpack
from prometheus_client import generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

Labels = tuple[tuple[str, str], ...]
Samples = dict[tuple[str, Labels], float]  # by a sample's name and labels
# By name: kind, help and samples.
Families = dict[str, tuple[str, str, Samples]]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def families_of(metrics: Iterable[Metric]) -> Families:
    """`metrics` as plain data, without the times at which counters began."""
    return {
        metric.name: (
            metric.type,
            metric.documentation,
            {
                (sample.name, tuple(sample.labels.items())): sample.value
                for sample in metric.samples
                if not sample.name.endswith("_created")
            },
        )
        for metric in metrics
    }


def pack(families: Families) -> bytes:
    """About 2 KB for an ingress."""
    plain = [
        [name, kind, help, [[key, labels, value] for (key, labels), value in samples.items()]]
        for name, (kind, help, samples) in families.items()
    ]
    return zlib.compress(cast(bytes, msgpack.packb(plain)), 1)


def unpack(data: bytes) -> Families:
    return {
        name: (kind, help, {(key, _labels(pairs)): value for key, pairs, value in samples})
        for name, kind, help, samples in msgpack.unpackb(zlib.decompress(data))
    }


def add_up(all_families: Iterable[Families]) -> Families:
    """Sums sample by sample."""
    total: Families = {}
    for families in all_families:
        for name, (kind, help, samples) in families.items():
            sums = total.setdefault(name, (kind, help, {}))[2]
            for key, value in samples.items():
                sums[key] = sums.get(key, 0.0) + value
    return total


def without_gauges(families: Families) -> Families:
    """What still counts of a process that has ended."""
    return {name: family for name, family in families.items() if family[0] != "gauge"}


def render(families: Families) -> bytes:
    """In Prometheus's text format."""
    return generate_latest(_Collected(families))


class _Collected(Collector):
    def __init__(self, families: Families) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for name, (kind, help, samples) in sorted(self._families.items()):
            metric = Metric(name, help, kind)
            for (key, labels), value in samples.items():
                metric.add_sample(key, dict(labels), value)
            yield metric


def _labels(pairs: Iterable[Iterable[Any]]) -> Labels:
    return tuple((str(name), str(value)) for name, value in pairs)


def ordered(snapshots: Mapping[str, bytes], live: Iterable[str]) -> Iterator[Families]:
    """Each process's families; of those that are not `live`, only what still counts."""
    alive = set(live)
    for name, data in snapshots.items():
        families = unpack(data)
        yield families if name in alive else without_gauges(families)
