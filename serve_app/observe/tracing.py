"""OpenTelemetry spans, sent by OTLP over HTTP where the environment names an endpoint.

    ingress ──┬── engine       a span for each pass of the model, in its replica
              └── plugin       and for each plugin call, in the plugin's

They are joined by W3C's `traceparent`, which the client may begin. Without an endpoint nothing is
imported, and a span costs a look at one variable.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
SERVICE = "moss-serve"


@contextmanager
def span(
    name: str, parent: str, attributes: Mapping[str, str | int] | None = None
) -> Iterator[str]:
    """A span for the block, below that of the `traceparent` `parent`, which may be "".

    Yields its own traceparent, "" where nothing is traced.
    """
    if (tracer := _tracer()) is None:
        yield ""
        return
    from opentelemetry.trace import Status, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = TraceContextTextMapPropagator().extract({"traceparent": parent} if parent else {})
    made = tracer.start_span(name, context=context, attributes=attributes)
    try:
        own = made.get_span_context()
        yield f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}"
    except Exception as error:
        # Not its message, which may quote a client.
        made.set_status(Status(StatusCode.ERROR, type(error).__name__))
        raise
    finally:
        made.end()


def flush_spans(timeout_s: float) -> None:
    """Sends what has not been sent; a process does so by itself when it ends in order."""
    if _tracer() is not None:
        _provider().force_flush(round(timeout_s * 1000))


@cache
def _tracer() -> "Tracer | None":
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        return None
    return _provider().get_tracer(SERVICE)


@cache
def _provider() -> "TracerProvider":
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(
        resource=Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", SERVICE)})
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
