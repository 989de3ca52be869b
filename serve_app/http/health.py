"""The state of the server behind the ingress: which groups serve, and whether it takes requests.

Each question is answered within LIMIT_S, whatever hangs behind it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from serve_app.groups import GroupState

# A check of its own may take shorter.
LIMIT_S = 5.0

Check = Callable[[], Awaitable[bool]]


class HealthProbe(Protocol):
    """What the model says about itself."""

    async def groups(self) -> Sequence[GroupState]:
        """Each tensor-parallel group: whether it can serve."""
        ...

    async def is_ready(self) -> bool:
        """False while the model loads or the server drains."""
        ...

    async def stats(self) -> dict[str, Any]:
        """The counters of all groups together, and of each. Raises EngineDeadError if none
        answers."""
        ...


async def groups_of(model: HealthProbe) -> Sequence[GroupState]:
    """`model.groups()`, none if it fails or is late."""
    try:
        async with asyncio.timeout(LIMIT_S):
            return await model.groups()
    except Exception:
        return ()


async def are_all_good(*checks: Check) -> bool:
    """Whether all `checks`, which run at once, are true. One that raises or is late is not."""
    try:
        async with asyncio.timeout(LIMIT_S):
            return all(await asyncio.gather(*(is_good() for is_good in checks)))
    except Exception:
        return False
