"""Deployment handles without a deployment."""

import asyncio
from collections.abc import Generator
from typing import Any, Self, cast

from ray.serve.exceptions import DeploymentUnavailableError, ReplicaUnavailableError

from cluster.channel.address import Target
from cluster.channel.outbox import Outbox
from cluster.channel.wire import Peer
from moss_tp.engine.outputs import FinishReason, TokenDelta
from plugins_svc.sdk.output import PluginOutput
from serve_app.remote.packed import pack

UNAVAILABLE = [
    DeploymentUnavailableError(cast(Any, "MossServer")),
    ReplicaUnavailableError("replica 1 is no longer available"),
]


class UnreachableHandle:
    """A deployment handle whose calls never reach a replica."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.num_calls = 0

    def options(self, **options: object) -> Self:
        return self

    def broadcast(self, method: str) -> Self:
        return self

    async def _fetch_replica_results_async(self) -> list[object]:
        raise self.error

    async def _fetch_future_result_async(self) -> None:
        raise self.error

    def __getattr__(self, method: str) -> Self:
        return self

    def remote(self, *arguments: Any, **options: Any) -> Self:
        self.num_calls += 1
        return self

    def __await__(self) -> Generator[None, None, object]:
        raise self.error
        yield

    def cancel(self) -> None:
        """Nothing runs."""


class EndingHandle(UnreachableHandle):
    """A deployment handle of a replica that answers each call with one delta, the last unless it
    `is_endless`."""

    def __init__(self) -> None:
        super().__init__(AssertionError("never raised"))
        self.num_cancelled = 0
        self.is_endless = False

    def remote(self, request: object, *, target: Target, route: object) -> Self:
        self.num_calls += 1
        self._sending = asyncio.create_task(self._send(target))
        return self

    async def _send(self, target: Target) -> None:
        connection = await Outbox(Peer("replica"), lambda: True).connect(target.address)
        reason: FinishReason | None = None if self.is_endless else "stop"
        connection.send(target.stream, pack(TokenDelta((65,), "A", reason, 1, 0)))

    def __await__(self) -> Generator[Any, None, object]:
        return asyncio.sleep(60 if self.is_endless else 0).__await__()

    def cancel(self) -> None:
        self.num_cancelled += 1


class SlowHandle(UnreachableHandle):
    """A deployment handle whose replica takes a call after `take_s`, and answers
    `answer_s` later."""

    def __init__(self, take_s: float, answer_s: float) -> None:
        super().__init__(asyncio.CancelledError())
        self.take_s = take_s
        self.answer_s = answer_s
        self.num_cancelled = 0

    async def _fetch_future_result_async(self) -> None:
        await asyncio.sleep(self.take_s)

    def __await__(self) -> Generator[None, None, object]:
        yield from asyncio.sleep(self.answer_s).__await__()
        return PluginOutput(True, ("late",))

    def cancel(self) -> None:
        self.num_cancelled += 1
