"""The model behind Serve's deployment handle. A replica that is lost costs a pause."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from ray.serve.handle import DeploymentHandle

from cluster.channel.listener import Listener
from cluster.routing.hits import HITS
from moss_tp.engine.outputs import TokenDelta
from moss_tp.engine.request import EngineRequest
from serve_app.remote.affinity import RouteKeys
from serve_app.remote.attempt import ReplicaLostError, attempt
from serve_app.remote.told import Told

logger = logging.getLogger(__name__)


class RemoteModel:
    """A ChatModel over the handle of MossServer. Deltas come to `listener`, which it owns."""

    def __init__(self, handle: DeploymentHandle[Any], listener: Listener) -> None:
        self._handle = handle
        self._listener = listener
        self._keys = RouteKeys()

    async def generate(self, request: EngineRequest, session_id: str) -> AsyncGenerator[TokenDelta]:
        """See `ChatModel.generate`.

        If the replica dies, or is silent for seconds, another goes on with the reply. Raises
        EngineDeadError when that would take down the next one, or nobody can.
        """
        await self._listener.open()
        told = Told(request, self._keys.key_of(request, session_id))
        while True:
            deltas = attempt(self._handle, self._listener, told.request, told.route)
            try:
                async with aclosing(deltas):
                    async for delta in deltas:
                        yield told.add(delta)
                return
            except ReplicaLostError as lost:
                pause_s = told.lose(lost)
                HITS.note_move()
                logger.warning("a request goes on elsewhere: %s", lost)
            await asyncio.sleep(pause_s)

    async def close(self) -> None:
        await self._listener.close()
