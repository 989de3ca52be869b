"""What one ingress counts: requests for replies as they are watched, and those it refuses.

A request counts once, when its reply ends; a live turn that moves counts where it ends.
"""

from asyncio import CancelledError
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from serve_app.observe import buckets
from serve_app.observe.collectors import (
    NothingRouted,
    Routed,
    RoutedCollector,
    WeightedHistogram,
)
from serve_app.observe.reply import ReplyRecord
from serve_app.request_context import CURRENT
from serve_app.watch import Note, Watched

# As vLLM calls the end of a request that its client has stopped.
_REASONS = {"cancelled": "abort"}


class _ReplyHistograms:
    """How long replies took, and how long they are."""

    def __init__(self, registry: CollectorRegistry, model_name: str, max_model_len: int) -> None:
        self._registry = registry
        self._model_name = model_name
        tokens = buckets.token_bounds(max_model_len)
        self._first = self._histogram(
            "vllm:time_to_first_token_seconds",
            "From the request to the first token of its reply, thoughts and plugins included.",
            buckets.FIRST_TOKEN_S,
        )
        self.between = WeightedHistogram(
            "vllm:inter_token_latency_seconds",
            "Between tokens of a reply.",
            buckets.BETWEEN_TOKENS_S,
            model_name,
        )
        registry.register(self.between)
        self._whole = self._histogram(
            "vllm:e2e_request_latency_seconds",
            "From the request to the end of its reply.",
            buckets.REQUEST_S,
        )
        self._prompt = self._histogram(
            "vllm:request_prompt_tokens", "Tokens of a request's prompt and Results.", tokens
        )
        self._generated = self._histogram(
            "vllm:request_generation_tokens", "Tokens that a request generated.", tokens
        )

    def count(self, record: ReplyRecord) -> None:
        """What is known at the end of a request."""
        if record.first_token_s is not None:
            self._first.observe(record.first_token_s)
        if not record.is_whole:
            return
        self._prompt.observe(record.prompt_tokens)
        self._generated.observe(record.completion_tokens)
        if record.seconds is not None:
            self._whole.observe(record.seconds)

    def _histogram(self, name: str, help: str, bounds: tuple[float, ...]) -> Histogram:
        histogram = Histogram(name, help, ["model_name"], registry=self._registry, buckets=bounds)
        return histogram.labels(self._model_name)


class TurnMetrics:
    """`clock` returns seconds, `routed` what the ingress' router counts. For one event loop."""

    def __init__(
        self,
        model_name: str,
        max_model_len: int,
        clock: Callable[[], float] = perf_counter,
        routed: Callable[[], Routed] = NothingRouted,
    ) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(RoutedCollector(model_name, routed))
        self._model_name = model_name
        self._clock = clock
        self._success = self._counter(
            "vllm:request_success", "Requests whose reply has ended.", "finished_reason"
        )
        self._replies = _ReplyHistograms(self.registry, model_name, max_model_len)
        self._plugins = Histogram(
            "moss:plugin_seconds",
            "Plugin calls.",
            ["model_name", "plugin", "outcome"],
            registry=self.registry,
            buckets=buckets.PLUGIN_S,
        )
        self._cancelled = self._counter(
            "moss:cancelled", "Requests whose client left or stopped them."
        ).labels(model_name)
        self._rejected = self._counter(
            "moss:rejected", "Requests refused with 408, 429 or 503.", "reason"
        )
        self._sessions = Gauge(
            "moss:sessions_active",
            "Sessions with a turn that runs.",
            ["model_name"],
            registry=self.registry,
        ).labels(model_name)

    def note_rejected(self, reason: str, count: int = 1) -> None:
        """`reason` is the code of the error."""
        self._rejected.labels(self._model_name, reason).inc(count)

    @contextmanager
    def watch(self, watched: Watched) -> Iterator[Note]:
        """Counts one request; a Watch."""
        record = ReplyRecord(watched, self._clock, self._replies.between.observe)
        request = CURRENT.get()
        if request is not None and watched.session_id:
            request.uid = watched.session_id
        is_session = bool(watched.session_id)
        self._sessions.inc(is_session)
        try:
            yield record.note
        except (GeneratorExit, CancelledError):
            record.is_left = True
            raise
        finally:
            self._sessions.dec(is_session)
            self._count(record)
            if request is not None:
                request.prompt_tokens += record.prompt_tokens
                request.completion_tokens += record.completion_tokens

    def _count(self, record: ReplyRecord) -> None:
        """What is known at the end of a request."""
        for call in record.calls:
            self._plugins.labels(self._model_name, call.name, call.state).observe(
                (call.ms or 0) / 1000
            )
        self._replies.count(record)
        if record.is_cancelled:
            self._cancelled.inc()
        if not record.is_whole:
            return
        reason = _REASONS.get(record.finish_reason, record.finish_reason)
        self._success.labels(self._model_name, reason).inc()

    def _counter(self, name: str, help: str, *labels: str) -> Counter:
        return Counter(name, help, ["model_name", *labels], registry=self.registry)
