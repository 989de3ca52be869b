"""The metrics of one tensor-parallel group, from the counters of its engine."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from serve_app.observe.collectors import bucket_samples
from serve_app.observe.snapshot import Families, Samples

BLOCKS = "moss:kv_cache_blocks"
USED_BLOCKS = "moss:kv_cache_used_blocks"
USAGE = "vllm:kv_cache_usage_perc"


class Waits(Protocol):
    """A histogram of seconds; see `moss_tp.engine.scheduling.waits.WaitCounts`."""

    @property
    def bounds(self) -> Sequence[float]: ...
    @property
    def counts(self) -> Sequence[int]: ...
    @property
    def sum_s(self) -> float: ...


class EngineCounters(Protocol):
    """See `moss_tp.engine.async_engine.EngineStats`."""

    @property
    def running(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    @property
    def free_blocks(self) -> int: ...
    @property
    def num_blocks(self) -> int: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def cached_tokens(self) -> int: ...
    @property
    def output_tokens(self) -> int: ...
    @property
    def preemptions(self) -> int: ...
    @property
    def waits(self) -> Waits: ...


def engine_metrics(stats: EngineCounters, model_name: str, replica: str) -> Iterator[Metric]:
    """Of one group: they can be added up with those of others. Gauges say which replica's they
    are; counters do not, so that those of replicas long gone are one sample."""
    gauges = (
        ("vllm:num_requests_running", "Passes that the engines compute.", stats.running),
        ("vllm:num_requests_waiting", "Passes in the engines' queues.", stats.waiting),
        (BLOCKS, "Blocks of the KV caches.", stats.num_blocks),
        (USED_BLOCKS, "Blocks that running passes hold.", stats.num_blocks - stats.free_blocks),
    )
    counters = (
        ("vllm:prompt_tokens", "Tokens of prompts, of every pass.", stats.prompt_tokens),
        ("vllm:generation_tokens", "Tokens generated.", stats.output_tokens),
        ("vllm:prefix_cache_queries", "Prompt tokens looked up.", stats.prompt_tokens),
        ("vllm:prefix_cache_hits", "Of them, found in the prefix cache.", stats.cached_tokens),
        ("vllm:num_preemptions", "Passes put back into the queue.", stats.preemptions),
    )
    labels = ["model_name"]
    for name, help, value in gauges:
        gauge = GaugeMetricFamily(name, help, labels=[*labels, "replica"])
        gauge.add_metric([model_name, replica], value)
        yield gauge
    for name, help, value in counters:
        counter = CounterMetricFamily(name, help, labels=labels)
        counter.add_metric([model_name], value)
        yield counter
    waits = HistogramMetricFamily(
        "vllm:request_queue_time_seconds", "In the engine's queue, of every pass.", labels=labels
    )
    buckets = bucket_samples(stats.waits.bounds, stats.waits.counts)
    waits.add_metric([model_name], buckets, stats.waits.sum_s)
    yield waits


def with_usage(families: Families) -> Families:
    """`families` of all groups, with the share of each one's blocks that is in use."""
    if BLOCKS not in families:
        return families
    used: Samples = families[USED_BLOCKS][2]
    blocks = {labels: value for (_, labels), value in families[BLOCKS][2].items()}
    shares: Samples = {
        (USAGE, labels): value / max(1.0, blocks[labels]) for (_, labels), value in used.items()
    }
    help = "Share of a KV cache's blocks that running passes hold, 1 for all."
    return {**families, USAGE: ("gauge", help, shares)}
