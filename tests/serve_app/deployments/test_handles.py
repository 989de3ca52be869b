"""Through a real deployment handle: deltas, errors as themselves, and a caller who leaves."""

import asyncio
import os
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, Self, cast

import pytest
from ray import serve
from ray.serve.exceptions import DeploymentUnavailableError, ReplicaUnavailableError
from ray.serve.handle import DeploymentHandle

from cluster.launch.local_ray import local_ray
from moss_tp.engine.outputs import TokenDelta
from moss_tp.errors import (
    ContextLengthError,
    EngineDeadError,
    InvalidRequestError,
    MossError,
    QueueFullError,
)
from moss_tp.sampling_params import SamplingParams
from plugins_svc.protocol.calls import Call
from plugins_svc.sdk.errors import PluginError, UnknownPluginError
from plugins_svc.sdk.output import PluginOutput
from serve_app.deployments.handles import RemoteModel, RemotePlugins

PARAMS = SamplingParams(seed=3)
ERRORS = {
    "long": ContextLengthError("too long"),
    "full": QueueFullError("too many"),
    "dead": EngineDeadError("rank 1 is gone"),
    "invalid": InvalidRequestError("token id 9 is outside the vocabulary"),
}
UNAVAILABLE = [
    DeploymentUnavailableError(cast(Any, "MossServer")),
    ReplicaUnavailableError("replica 1 is no longer available"),
]


class FakeServer:
    """Speaks as MossServer does; the request id says what happens."""

    def __init__(self) -> None:
        self.num_aborted = 0
        self.is_healthy = True

    async def generate(
        self, request_id: str, prompt_ids: Sequence[int], params: SamplingParams
    ) -> AsyncIterator[TokenDelta]:
        assert params == PARAMS
        if (marker := Path(request_id)).is_absolute() and not marker.exists():
            marker.touch()
            os._exit(1)
        for token_id in prompt_ids:
            yield TokenDelta((token_id,), chr(token_id), None, len(prompt_ids), 0)
        if request_id in ERRORS:
            raise ERRORS[request_id]
        try:
            await asyncio.sleep(300 if request_id == "endless" else 0)
        except asyncio.CancelledError:
            self.num_aborted += 1
            raise
        yield TokenDelta((0,), "", "stop", len(prompt_ids), 0)

    async def check_health(self) -> None:
        """Serve asks it too, so only what is asked last may be a no."""
        if not self.is_healthy:
            raise EngineDeadError("no step has ended")

    async def stats(self) -> dict[str, int]:
        return {"num_aborted": self.num_aborted}

    async def fall_ill(self) -> None:
        self.is_healthy = False


class GoneHandle:
    """A deployment handle of which no call reaches a replica, whatever the method."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.num_calls = 0

    def options(self, **options: object) -> Self:
        return self

    def __getattr__(self, method: str) -> Self:
        return self

    def remote(self, *arguments: object) -> Self:
        self.num_calls += 1
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TokenDelta:
        raise self.error

    def __await__(self) -> Generator[None, None, object]:
        raise self.error
        yield

    def cancel(self) -> None:
        """Nothing runs."""


class FakePlugin:
    async def run(self, argument: str) -> PluginOutput:
        return PluginOutput(True, (argument.upper(),))


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


async def test_deltas_come_through(model: RemoteModel) -> None:
    deltas = [d async for d in model.generate("r", [65, 66], PARAMS, "session")]
    assert [d.text for d in deltas] == ["A", "B", ""]
    assert deltas[-1].finish_reason == "stop"


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("prompt_ids", [[], [65]])
async def test_errors_arrive_as_themselves(
    model: RemoteModel, name: str, prompt_ids: list[int]
) -> None:
    with pytest.raises(MossError) as raised:
        async for _ in model.generate(name, prompt_ids, PARAMS, "session"):
            pass
    assert type(raised.value) is type(ERRORS[name])
    assert str(raised.value) == str(ERRORS[name])


async def test_a_replica_that_dies_unheard_is_replaced_unnoticed(
    model: RemoteModel, tmp_path: Path
) -> None:
    deltas = model.generate(str(tmp_path / "died"), [65], PARAMS, "session")
    assert [delta.text async for delta in deltas] == ["A", ""]
    assert (tmp_path / "died").exists()


async def test_closing_reaches_the_server(model: RemoteModel) -> None:
    before = (await model.stats())["num_aborted"]
    deltas = model.generate("endless", [65], PARAMS, "session")
    assert (await anext(deltas)).text == "A"
    await deltas.aclose()
    async with asyncio.timeout(10):
        while (await model.stats())["num_aborted"] == before:
            await asyncio.sleep(0.01)


async def test_plugins_by_name(
    handles: tuple[DeploymentHandle[FakeServer], DeploymentHandle[FakePlugin]],
) -> None:
    plugins = RemotePlugins({"calculator": handles[1]})
    assert await plugins.run(Call("Calculate", "1+x")) == PluginOutput(True, ("1+X",))
    with pytest.raises(UnknownPluginError):
        await plugins.run(Call("Search", "x"))


@pytest.mark.parametrize("error", UNAVAILABLE)
async def test_a_model_without_replicas_is_a_dead_engine(error: Exception) -> None:
    gone = GoneHandle(error)
    deltas = RemoteModel(cast(DeploymentHandle[Any], gone)).generate("r", [65], PARAMS, "session")
    with pytest.raises(EngineDeadError):
        await anext(deltas)
    assert gone.num_calls == 2, "it was tried again, once"


@pytest.mark.parametrize("error", UNAVAILABLE)
async def test_a_plugin_without_replicas_is_its_error(error: Exception) -> None:
    gone = cast(DeploymentHandle[Any], GoneHandle(error))
    with pytest.raises(PluginError, match="calculator"):
        await RemotePlugins({"calculator": gone}).run(Call("Calculate", "1"))


async def test_health_is_the_engines(
    model: RemoteModel, handles: tuple[DeploymentHandle[FakeServer], DeploymentHandle[FakePlugin]]
) -> None:
    assert await model.is_healthy()
    assert await model.is_ready()
    await handles[0].fall_ill.remote()
    assert not await model.is_healthy()
