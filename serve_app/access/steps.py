"""Steps of the door in the store: over a lane of their own, within a time of their own."""

import time
from collections.abc import Sequence
from typing import Any

from serve_app.store.lane import Lane
from serve_app.store.patient_lane import PatientLane
from serve_app.store.script import Arg, Script

PATIENCE_S = 6.0
_NUM_CONNECTIONS = 4
_ANSWER_S = 2.0


def make_lane(url: str) -> Lane:
    """Raises ConfigError for an invalid URL."""
    return PatientLane(url, _NUM_CONNECTIONS, _ANSWER_S, PATIENCE_S)


async def run_script(lane: Lane, script: Script, keys: Sequence[str], *args: Arg) -> Any:
    """Its result. Raises StoreUnavailableError, also if the store is only too busy."""
    until = time.monotonic() + PATIENCE_S
    return await lane.run(lambda redis: script.run(redis, keys, *args), until)
