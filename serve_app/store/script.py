"""A Lua script: one atomic step in the store."""

import hashlib
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import NoScriptError

Arg = str | bytes | int


class Script:
    """A script, sent by its digest where the server knows it."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    async def run(self, redis: Redis, keys: Sequence[str], *args: Arg) -> Any:
        """Its result for one session."""
        try:
            return await redis.evalsha(self._sha, len(keys), *keys, *args)
        except NoScriptError:  # a server forgets its scripts when it restarts
            return await redis.eval(self._text, len(keys), *keys, *args)

    def queue(self, pipeline: Pipeline, keys: Sequence[str], *args: Arg) -> None:
        """Adds one call to `pipeline`; by its text, since a pipeline cannot send that later."""
        pipeline.eval(self._text, len(keys), *keys, *args)

    async def run_all(
        self, redis: Redis, calls: Sequence[tuple[str, tuple[Arg, ...]]]
    ) -> list[Any]:
        """Its results for many sessions in one round trip; a call is a key and arguments."""
        async with redis.pipeline(transaction=False) as pipeline:
            for key, args in calls:
                self.queue(pipeline, [key], *args)
            results: list[Any] = await pipeline.execute()
        return results
