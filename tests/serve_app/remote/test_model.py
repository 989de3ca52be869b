"""RemoteModel and remote plugins through real deployment handles: deltas, errors, aborts."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from ray import serve
from ray.exceptions import ActorDiedError
from ray.serve.exceptions import DeploymentUnavailableError, ReplicaUnavailableError
from ray.serve.handle import DeploymentHandle

from cluster.launch.local_ray import local_ray
from cluster.routing.route import Route
from moss_tp.engine.outputs import TokenDelta
from moss_tp.engine.request import EngineRequest
from moss_tp.errors import (
    ContextLengthError,
    EngineDeadError,
    InvalidRequestError,
    MossError,
    QueueFullError,
)
from moss_tp.sampling_params import SamplingParams
from plugins_svc.protocol.calls import Call
from plugins_svc.sdk.errors import UnknownPluginError
from plugins_svc.sdk.output import PluginOutput
from serve_app.chat.calling.circuit_breaker import PluginUnreachableError
from serve_app.groups import GroupState
from serve_app.remote import plugins as module
from serve_app.remote.model import RemoteModel
from serve_app.remote.packed import pack
from serve_app.remote.plugins import remote_plugins
from serve_app.remote.probe import ReplicaProbe
from tests.serve_app.remote.fake_handles import (
    EndingHandle,
    SlowHandle,
    UnreachableHandle,
)

PARAMS = SamplingParams(seed=3)
ERRORS = {
    "long": ContextLengthError("too long"),
    "full": QueueFullError("too many"),
    "dead": EngineDeadError("rank 1 is gone"),
    "invalid": InvalidRequestError("token id 9 is outside the vocabulary"),
}
SHORT_S = 0.1
UNAVAILABLE = [
    DeploymentUnavailableError(cast(Any, "MossServer")),
    ReplicaUnavailableError("replica 1 is no longer available"),
]


def a_request(request_id: str, *prompt_ids: int) -> EngineRequest:
    return EngineRequest(request_id, prompt_ids, PARAMS, "ann", 7, 1, 30, is_continuation=True)


class FakeServer:
    """Has MossServer's methods; the request id decides what happens."""

    def __init__(self) -> None:
        self.num_aborted = 0
        self.is_healthy = True

    async def generate(self, request: EngineRequest, *, route: Route) -> AsyncIterator[bytes]:
        assert route == Route("session")
        request_id, prompt_ids = request.request_id, request.prompt_ids
        assert request == a_request(request_id, *prompt_ids), "every field arrives"
        if (marker := Path(request_id)).is_absolute() and not marker.exists():
            marker.touch()
            os._exit(1)
        for token_id in prompt_ids:
            yield pack(TokenDelta((token_id,), chr(token_id), None, len(prompt_ids), 0))
        if request_id == "bug":
            raise ValueError
        if request_id in ERRORS:
            raise ERRORS[request_id]
        try:
            await asyncio.sleep(300 if request_id == "endless" else 0)
        except asyncio.CancelledError:
            self.num_aborted += 1
            raise
        yield pack(TokenDelta((0,), "", "stop", len(prompt_ids), 0))

    async def state(self) -> GroupState:
        return GroupState("serving" if self.is_healthy else "failed", "one", 1)

    async def check_health(self) -> None:
        """Serve calls it too, so it may fail only in the last test."""
        if not self.is_healthy:
            raise EngineDeadError("no step has ended")

    async def stats(self) -> dict[str, int]:
        return {"num_aborted": self.num_aborted}

    async def become_unhealthy(self) -> None:
        self.is_healthy = False


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
def handles() -> Iterator[tuple[DeploymentHandle[FakeServer], DeploymentHandle[FakePlugin]]]:
    with local_ray(num_cpus=2):
        serve.start(proxy_location="Disabled")
        model = serve.deployment(
            name="Fake", ray_actor_options={"num_cpus": 0}, health_check_period_s=1
        )(FakeServer)
        plugin = serve.deployment(name="Plugin", ray_actor_options={"num_cpus": 0})(FakePlugin)
        try:
            yield (
                serve.run(model.bind(), name="model", route_prefix=None),
                serve.run(plugin.bind(), name="plugin", route_prefix=None),
            )
        finally:
            serve.shutdown()  # type: ignore[no-untyped-call]


@pytest.fixture
def model(
    handles: tuple[DeploymentHandle[FakeServer], DeploymentHandle[FakePlugin]],
) -> RemoteModel:
    return RemoteModel(handles[0])


@pytest.fixture
def probe(
    handles: tuple[DeploymentHandle[FakeServer], DeploymentHandle[FakePlugin]],
) -> ReplicaProbe:
    return ReplicaProbe(handles[0])


async def test_deltas_arrive_in_order(model: RemoteModel) -> None:
    deltas = [d async for d in model.generate(a_request("r", 65, 66), "session")]
    assert [d.text for d in deltas] == ["A", "B", ""]
    assert deltas[-1].finish_reason == "stop"


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("prompt_ids", [[], [65]])
async def test_errors_arrive_with_their_own_type_and_message(
    model: RemoteModel, name: str, prompt_ids: list[int]
) -> None:
    with pytest.raises(MossError) as raised:
        async for _ in model.generate(a_request(name, *prompt_ids), "session"):
            pass
    assert type(raised.value) is type(ERRORS[name])
    assert str(raised.value) == str(ERRORS[name])


async def test_a_bug_of_the_replica_is_not_its_own_cause(model: RemoteModel) -> None:
    with pytest.raises(ValueError) as raised:
        await anext(model.generate(a_request("bug"), "session"))
    assert raised.value.__cause__ is not raised.value, "who logs it follows the causes"


async def test_a_request_is_retried_if_its_replica_dies_before_the_first_delta(
    model: RemoteModel, tmp_path: Path
) -> None:
    deltas = model.generate(a_request(str(tmp_path / "died"), 65), "session")
    assert [delta.text async for delta in deltas] == ["A", ""]
    assert (tmp_path / "died").exists()


async def test_closing_the_deltas_cancels_the_remote_call(
    model: RemoteModel, probe: ReplicaProbe
) -> None:
    before = (await probe.stats())["num_aborted"]
    deltas = model.generate(a_request("endless", 65), "session")
    assert (await anext(deltas)).text == "A"
    await deltas.aclose()
    async with asyncio.timeout(10):
        while (await probe.stats())["num_aborted"] == before:
            await asyncio.sleep(0.01)


async def test_plugin_calls_go_to_the_plugin_of_that_name(
    handles: tuple[DeploymentHandle[FakeServer], DeploymentHandle[FakePlugin]],
) -> None:
    plugins = remote_plugins({"calculator": handles[1]})
    assert await plugins.run(Call("Calculate", "1+x"), 30) == PluginOutput(True, ("1+X",))
    with pytest.raises(UnknownPluginError):
        await plugins.run(Call("Search", "x"), 30)


async def test_a_cancelled_call_ends_in_its_plugin(
    handles: tuple[DeploymentHandle[FakeServer], DeploymentHandle[FakePlugin]],
) -> None:
    plugins = remote_plugins({"calculator": handles[1]})
    calling = asyncio.create_task(plugins.run(Call("Calculate", "endless"), 30))
    async with asyncio.timeout(10):
        while not (await handles[1].state.remote())[0]:
            await asyncio.sleep(0.01)
        cancelled_at = time.time()
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        while (ended_at := (await handles[1].state.remote())[1]) is None:
            await asyncio.sleep(0.01)
    assert ended_at - cancelled_at < 0.5, "0.1 s on a machine that is not shared"


async def test_a_call_that_has_ended_is_not_cancelled() -> None:
    """That would be a message to the replica for each pass."""
    handle = EndingHandle()
    model = RemoteModel(cast(DeploymentHandle[Any], handle))
    assert [delta.text async for delta in model.generate(a_request("r", 65), "session")] == ["A"]
    assert handle.num_cancelled == 0
    deltas = model.generate(a_request("r", 65), "session")
    await anext(deltas)
    await deltas.aclose()
    assert handle.num_cancelled == 1


@pytest.mark.parametrize("error", [*UNAVAILABLE, asyncio.CancelledError()])
async def test_a_model_without_replicas_raises_engine_dead(error: BaseException) -> None:
    unreachable = UnreachableHandle(error)
    deltas = RemoteModel(cast(DeploymentHandle[Any], unreachable)).generate(
        a_request("r", 65), "session"
    )
    with pytest.raises(EngineDeadError):
        await anext(deltas)
    assert unreachable.num_calls == 2, "one retry"


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


@pytest.mark.parametrize("error", [*UNAVAILABLE, asyncio.CancelledError()])
async def test_a_model_without_replicas_is_unhealthy(error: BaseException) -> None:
    probe = ReplicaProbe(cast(DeploymentHandle[Any], UnreachableHandle(error)))
    assert await probe.groups() == ()
    assert not await probe.is_ready()
    with pytest.raises(EngineDeadError):
        await probe.stats()


async def test_health_is_that_of_the_engine(
    probe: ReplicaProbe, handles: tuple[DeploymentHandle[FakeServer], DeploymentHandle[FakePlugin]]
) -> None:
    assert await probe.groups() == (GroupState("serving", "one", 1),)
    assert await probe.is_ready()
    await handles[0].become_unhealthy.remote()
    assert await probe.groups() == (GroupState("failed", "one", 1),)
    assert not await probe.is_ready()
