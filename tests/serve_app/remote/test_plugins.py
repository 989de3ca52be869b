"""Plugins through real deployment handles: answers, errors, aborts."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest
from ray import serve
from ray.exceptions import ActorDiedError
from ray.serve.handle import DeploymentHandle

from cluster.launch.local_ray import local_ray
from plugins_svc.protocol.calls import Call
from plugins_svc.sdk.errors import UnknownPluginError
from plugins_svc.sdk.output import PluginOutput
from serve_app.chat.calling.circuit_breaker import PluginUnreachableError
from serve_app.remote import plugins as module
from serve_app.remote.plugins import remote_plugins
from tests.serve_app.remote.fake_handles import UNAVAILABLE, SlowHandle, UnreachableHandle

SHORT_S = 0.1


class FakePlugin:
    """Answers in capitals; an endless call notes when it was cancelled."""

    def __init__(self) -> None:
        self.is_running = False
        self.ended_at: float | None = None

    async def run(self, argument: str) -> PluginOutput:
        if argument == "endless":
            self.is_running = True
            try:
                await asyncio.sleep(300)
            finally:
                self.ended_at = time.time()
        return PluginOutput(True, (argument.upper(),))

    async def state(self) -> tuple[bool, float | None]:
        return self.is_running, self.ended_at


@pytest.fixture(scope="module")
def plugin() -> Iterator[DeploymentHandle[FakePlugin]]:
    with local_ray(num_cpus=2):
        serve.start(proxy_location="Disabled")
        deployment = serve.deployment(name="Plugin", ray_actor_options={"num_cpus": 0})(FakePlugin)
        try:
            yield serve.run(deployment.bind(), name="plugin", route_prefix=None)
        finally:
            serve.shutdown()  # type: ignore[no-untyped-call]


async def test_plugin_calls_go_to_the_plugin_of_that_name(
    plugin: DeploymentHandle[FakePlugin],
) -> None:
    plugins = remote_plugins({"calculator": plugin})
    assert await plugins.run(Call("Calculate", "1+x"), 30) == PluginOutput(True, ("1+X",))
    with pytest.raises(UnknownPluginError):
        await plugins.run(Call("Search", "x"), 30)


async def test_a_cancelled_call_ends_in_its_plugin(
    plugin: DeploymentHandle[FakePlugin],
) -> None:
    plugins = remote_plugins({"calculator": plugin})
    calling = asyncio.create_task(plugins.run(Call("Calculate", "endless"), 30))
    async with asyncio.timeout(10):
        while not (await plugin.state.remote())[0]:
            await asyncio.sleep(0.01)
        cancelled_at = time.time()
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        while (ended_at := (await plugin.state.remote())[1]) is None:
            await asyncio.sleep(0.01)
    assert ended_at - cancelled_at < 0.5, "0.1 s on a machine that is not shared"


@pytest.mark.parametrize("error", [*UNAVAILABLE, ActorDiedError(), asyncio.CancelledError()])
async def test_a_plugin_without_replicas_is_unreachable(error: BaseException) -> None:
    unreachable = cast(DeploymentHandle[Any], UnreachableHandle(error))
    with pytest.raises(PluginUnreachableError, match="calculator"):
        await remote_plugins({"calculator": unreachable}).run(Call("Calculate", "1"), 30)


async def test_a_call_that_no_replica_takes_does_not_wait_for_an_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a plugin that may take a minute would hold its turns for one when it has died."""
    monkeypatch.setattr(module, "TAKE_S", SHORT_S)
    dead, slow = SlowHandle(600, 3 * SHORT_S), SlowHandle(0, 3 * SHORT_S)
    async with asyncio.timeout(10):
        with pytest.raises(PluginUnreachableError, match="calculator"):
            handle = cast(DeploymentHandle[Any], dead)
            await remote_plugins({"calculator": handle}).run(Call("Calculate", "1"), 60)
    assert dead.num_cancelled == 1
    handle = cast(DeploymentHandle[Any], slow)
    answer = await remote_plugins({"calculator": handle}).run(Call("Calculate", "1"), 60)
    assert answer.lines == ("late",) and slow.num_cancelled == 0
