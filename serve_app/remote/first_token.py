"""Readiness that is more than health: a token has come the way that the tokens of requests come."""

import asyncio
import logging
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Protocol

from moss_tp.engine.outputs import TokenDelta
from moss_tp.engine.request import EngineRequest
from moss_tp.errors import MossError, QueueFullError
from moss_tp.sampling_params import SamplingParams
from serve_app.groups import ASLEEP, GroupState

# An idle server takes milliseconds, one that has just started up to seconds.
LIMIT_S = 8.0
WAIT_S = 3.0  # whoever asks whether it is ready waits no longer
TOKEN_ID = 0  # any: a prompt of one token fills no block that could be cached

logger = logging.getLogger(__name__)


class Model(Protocol):
    def generate(self, request: EngineRequest, session_id: str) -> AsyncGenerator[TokenDelta]: ...


class FirstToken:
    """Asks `model` for a token until one has come, while one of its `groups` serves. A model that
    sleeps is not woken for it: it is ready to be woken. For one event loop."""

    def __init__(self, model: Model, groups: Callable[[], Awaitable[Sequence[GroupState]]]) -> None:
        self._model = model
        self._groups = groups
        self._has_come = False
        self._asking: asyncio.Task[None] | None = None

    async def has_come(self) -> bool:
        """A check of readiness: cheap once it is true, and it stays true."""
        if self._has_come:
            return True
        groups = await self._groups()
        if ASLEEP in groups:
            return True
        if any(group.is_serving for group in groups):
            if self._asking is None or self._asking.done():
                self._asking = asyncio.create_task(self._ask())
            await asyncio.wait({self._asking}, timeout=WAIT_S)
        return self._has_come

    def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()

    async def _ask(self) -> None:
        try:
            async with asyncio.timeout(LIMIT_S), aclosing(self._one_token()) as deltas:
                async for _ in deltas:
                    self._has_come = True
        except QueueFullError:  # some replica has answered, and others are served
            self._has_come = True
        except (MossError, TimeoutError) as error:
            logger.warning("no token has come yet: %s", type(error).__name__)

    def _one_token(self) -> AsyncGenerator[TokenDelta]:
        """Ahead of the queue, like the next pass of a turn."""
        request = EngineRequest(
            request_id=f"first-{uuid.uuid4().hex}",
            prompt_ids=(TOKEN_ID,),
            params=SamplingParams(max_tokens=1),
            deadline_s=LIMIT_S,
            is_continuation=True,
        )
        return self._model.generate(request, "")
