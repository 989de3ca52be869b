"""The health endpoints: whether the process runs, can serve, and takes new requests."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


class HealthProbe(Protocol):
    """The checks behind the health endpoints."""

    async def is_healthy(self) -> bool:
        """False if a rank is dead, or a step hangs while requests wait."""
        ...

    async def is_ready(self) -> bool:
        """False while the model loads or the server drains."""
        ...


def health_routes(probe: HealthProbe) -> list[Route]:
    """`/health`, `/livez` and `/readyz`: 200 or 503, with an empty body."""
    return [
        Route("/health", _endpoint(probe.is_healthy)),
        Route("/livez", _endpoint(_is_alive)),
        Route("/readyz", _endpoint(probe.is_ready)),
    ]


def _endpoint(is_good: Callable[[], Awaitable[bool]]) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint for one check. A check that raises counts as failed."""

    async def endpoint(request: Request) -> Response:
        try:
            return Response(status_code=200 if await is_good() else 503)
        except Exception:
            return Response(status_code=503)

    return endpoint


async def _is_alive() -> bool:
    return True
