"""The health endpoints: whether the process runs, can serve, and takes new requests.

Each answers within LIMIT_S, whatever hangs behind it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

# A check of its own may take shorter.
LIMIT_S = 5.0

Check = Callable[[], Awaitable[bool]]


class HealthProbe(Protocol):
    """The model's checks."""

    async def is_healthy(self) -> bool:
        """False if a rank is dead, or a step hangs while requests wait."""
        ...

    async def is_ready(self) -> bool:
        """False while the model loads or the server drains."""
        ...


def health_routes(model: HealthProbe, readiness: Sequence[Check]) -> list[Route]:
    """`/health`, `/livez` and `/readyz`: 200 or 503, with an empty body.

    A server is ready if its model is and every check of `readiness` is true.
    """
    return [
        Route("/health", _endpoint(model.is_healthy)),
        Route("/livez", _endpoint()),
        Route("/readyz", _endpoint(model.is_ready, *readiness)),
    ]


def _endpoint(*checks: Check) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint for checks that run at once. One that raises or is late counts as failed."""

    async def endpoint(request: Request) -> Response:
        try:
            async with asyncio.timeout(LIMIT_S):
                are_good = await asyncio.gather(*(is_good() for is_good in checks))
        except Exception:
            are_good = [False]
        return Response(status_code=200 if all(are_good) else 503)

    return endpoint
