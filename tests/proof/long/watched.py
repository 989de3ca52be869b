"""The real replica and a slow plugin, which write down when something that was given up is over.

A line is `freed`, `ended` or `poisoned`, the id of the request or the argument of the call, and the
time in seconds of `time.monotonic`, which all processes of a machine share.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

from cluster.channel.address import Target
from cluster.routing.route import ANYWHERE, Route
from moss_tp.engine.outputs import TokenDelta
from moss_tp.engine.request import EngineRequest
from plugins_svc.sdk.output import PluginOutput
from serve_app.deployments.model import MossServer
from serve_app.settings import ServeSettings
from tests.proof.plugins import note

LOG = "PROOF_CALLS"
LOOK_S = 0.002
SLOW_S = 30.0
POISON = (3, 0.125)  # a logit bias, by which a request ends every group that computes it
Generate = Callable[[EngineRequest], AsyncGenerator[TokenDelta]]


class WatchedServer(MossServer):
    """A replica with the real engine, and so with the real admission; POISON kills it."""

    def __init__(self, settings: ServeSettings) -> None:
        super().__init__(settings)
        engine: Any = self._engine
        engine.generate = _poisoned(engine.generate)

    async def generate(
        self, request: EngineRequest, *, target: Target, route: Route = ANYWHERE
    ) -> None:
        is_over = False
        try:
            await super().generate(request, target=target, route=route)
            is_over = True
        finally:
            if not is_over:
                self._watching = asyncio.create_task(self._watch(request.request_id))

    async def _watch(self, request_id: str) -> None:
        """Until the scheduler holds nothing of the request: no slot, no block, no place."""
        scheduler = self._engine._engine.scheduler
        while any(seq.request_id == request_id for seq in [*scheduler.running, *scheduler.waiting]):
            await asyncio.sleep(LOOK_S)
        note(Path(os.environ[LOG]), "freed", f"{request_id} {time.monotonic()}")


def _poisoned(generate: Generate) -> Generate:
    async def deltas(request: EngineRequest) -> AsyncGenerator[TokenDelta]:
        if POISON in request.params.logit_bias:
            note(Path(os.environ[LOG]), "poisoned", f"{request.request_id} {time.monotonic()}")
            os.kill(os.getpid(), signal.SIGKILL)
        async with aclosing(generate(request)) as stream:
            async for delta in stream:
                yield delta

    return deltas


async def run_slowly(log: Path, argument: str) -> PluginOutput:
    """Nobody waits for its answer."""
    note(log, "begun", f"{argument} {time.monotonic()}")
    try:
        await asyncio.sleep(SLOW_S)
    finally:
        note(log, "ended", f"{argument} {time.monotonic()}")
    return PluginOutput(True, ("0",))


def noted(log: Path, kind: str) -> list[tuple[str, float]]:
    """The lines of that kind in their order: id or argument, and time."""
    lines = log.read_text("utf-8").splitlines() if log.exists() else []
    own = [line.split(" ", 1)[1].rsplit(" ", 1) for line in lines if line.startswith(f"{kind} ")]
    return [(what, float(at)) for what, at in own]
