"""The server about itself: health, readiness, version, counters."""

import importlib.metadata
from dataclasses import asdict

from starlette.responses import JSONResponse, Response

from serve_app.api.meta import Group, Health, Version
from serve_app.http.endpoint import Call, Endpoint
from serve_app.http.health import are_all_good, groups_of
from serve_app.observe.snapshot import CONTENT_TYPE


async def health(call: Call) -> Response:
    """200 while some group can serve."""
    groups = await groups_of(call.service.health)
    can_serve = any(group.is_serving for group in groups)
    body = Health(
        status="ok" if can_serve else "unavailable",
        groups=[Group(healthy=group.is_serving, **asdict(group)) for group in groups],
    )
    return JSONResponse(body.model_dump(), 200 if can_serve else 503)


async def live(call: Call) -> Response:
    return Response()


async def ready(call: Call) -> Response:
    service = call.service
    checks = service.health.is_ready, service.drain.takes_turns, *service.readiness
    return Response(status_code=200 if await are_all_good(*checks) else 503)


async def version(call: Call) -> Response:
    number = importlib.metadata.version("moss-serve")
    return JSONResponse(Version(version=number, model=call.service.model_name).model_dump())


async def stats(call: Call) -> Response:
    """For people and tests; dashboards read `/metrics`."""
    return JSONResponse(await call.service.health.stats())


async def metrics(call: Call) -> Response:
    """Of all groups and ingresses, whoever answers."""
    return Response(await call.service.metrics.text(), media_type=CONTENT_TYPE)


ENDPOINTS = (
    Endpoint("GET", "/health", health, "Which groups can serve", access="public", answer=Health),
    Endpoint("GET", "/livez", live, "Whether this process runs", access="public", media_type=""),
    Endpoint("GET", "/readyz", ready, "Whether requests are taken", access="public", media_type=""),
    Endpoint("GET", "/version", version, "Versions", access="public", answer=Version),
    Endpoint(
        "GET", "/stats", stats, "Counters of all groups, and of each", access="admin", errors=(500,)
    ),
    Endpoint(
        "GET",
        "/metrics",
        metrics,
        "Metrics of the whole server, for Prometheus",
        access="admin",
        errors=(408, 503),
        media_type="text/plain",
    ),
)
