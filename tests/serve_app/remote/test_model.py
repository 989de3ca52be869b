"""RemoteModel through real deployment handles: deltas, errors, aborts, lost replicas."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from ray import serve
from ray.serve.handle import DeploymentHandle

from cluster.channel.address import Target
from cluster.channel.listener import Listener
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
from serve_app.deployments.replies import Replies
from serve_app.groups import GroupState
from serve_app.remote.model import RemoteModel
from serve_app.remote.probe import ReplicaProbe
from serve_app.remote.told import MAX_SENDS
from tests.serve_app.remote.fake_handles import UNAVAILABLE, EndingHandle, UnreachableHandle

PARAMS = SamplingParams(seed=3)
ERRORS = {
    "long": ContextLengthError("too long"),
    "full": QueueFullError("too many"),
    "invalid": InvalidRequestError("token id 9 is outside the vocabulary"),
}
STORY = tuple(range(65, 91))
PAUSE_S = 0.02


def a_request(request_id: str, *prompt_ids: int, output_ids: tuple[int, ...] = ()) -> EngineRequest:
    return EngineRequest(
        request_id, prompt_ids, PARAMS, "ann", 7, 1, None, True, output_ids=output_ids
    )


class FakeServer:
    """Has MossServer's methods: it repeats the prompt, and the request id decides how it ends.

    A path is that of a file in which each replica that works on it writes its process id; `once:`
    before it makes the first one die in the middle, and `each:` every one at once that goes on.
    """

    def __init__(self) -> None:
        self.num_aborted = 0
        self.is_healthy = True
        self._replies = Replies({"weights": "fake"}, lambda: True)

    async def generate(self, request: EngineRequest, *, target: Target, route: Route) -> None:
        name = request.request_id.partition("~")[0]
        ids, told = request.prompt_ids, request.output_ids
        expected = a_request(request.request_id, *ids, output_ids=tuple(told))
        assert request == expected, "every field arrives"
        await self._replies.send(self._repeat(name, ids, told), request, target, route)

    async def _repeat(
        self, name: str, ids: Sequence[int], told: Sequence[int]
    ) -> AsyncGenerator[TokenDelta]:
        how, _, file = name.rpartition(":")
        if file.startswith("/"):
            with Path(file).open("a") as log:
                log.write(f"{os.getpid()} {len(told)}\n")
        try:
            if how == "each" and told:
                await asyncio.sleep(PAUSE_S)
                os.kill(os.getpid(), signal.SIGKILL)
            for number in range(len(told), len(ids)):
                yield TokenDelta((ids[number],), chr(ids[number]), None, len(ids), number)
                await asyncio.sleep(PAUSE_S if file.startswith("/") else 0)
                if how in ("once", "each") and not told and number == 4:
                    os.kill(os.getpid(), signal.SIGKILL)
            if name == "bug":
                raise ValueError
            if name in ERRORS:
                raise ERRORS[name]
            await asyncio.sleep(300 if name == "endless" else 0)
        except (asyncio.CancelledError, GeneratorExit):
            self.num_aborted += 1
            raise
        yield TokenDelta((0,), "", "stop", len(ids), len(told))

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


Handle = DeploymentHandle[FakeServer]


@pytest.fixture(scope="module")
def handle() -> Iterator[Handle]:
    with local_ray(num_cpus=2):
        serve.start(proxy_location="Disabled")
        deployment = serve.deployment(
            name="Fake", ray_actor_options={"num_cpus": 0}, health_check_period_s=1
        )(FakeServer)
        try:
            yield serve.run(deployment.bind(), name="model", route_prefix=None)
        finally:
            serve.shutdown()  # type: ignore[no-untyped-call]


@pytest.fixture
async def model(handle: Handle) -> AsyncIterator[RemoteModel]:
    model = RemoteModel(handle, Listener(silence_s=2.0))
    yield model
    await model.close()


def over(handle: UnreachableHandle) -> RemoteModel:
    return RemoteModel(cast(DeploymentHandle[Any], handle), Listener())


async def told(model: RemoteModel, request: EngineRequest) -> list[TokenDelta]:
    return [delta async for delta in model.generate(request, "session")]


async def test_deltas_arrive_in_order(model: RemoteModel) -> None:
    deltas = await told(model, a_request("r", 65, 66))
    assert "".join(delta.text for delta in deltas) == "AB"
    assert [i for delta in deltas for i in delta.token_ids] == [65, 66, 0]
    assert deltas[0].text == "A", "the first at once"
    assert [delta.finish_reason for delta in deltas] == [None] * (len(deltas) - 1) + ["stop"]


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("prompt_ids", [[], [65, 66]])
async def test_errors_arrive_behind_the_deltas_with_their_own_type_and_message(
    model: RemoteModel, name: str, prompt_ids: list[int]
) -> None:
    text = ""
    with pytest.raises(MossError) as raised:
        async for delta in model.generate(a_request(name, *prompt_ids), "session"):
            text += delta.text
    assert text == "".join(map(chr, prompt_ids))
    assert type(raised.value) is type(ERRORS[name])
    assert str(raised.value) == str(ERRORS[name])


async def test_a_bug_of_the_replica_is_not_its_own_cause(model: RemoteModel) -> None:
    with pytest.raises(ValueError) as raised:
        await anext(model.generate(a_request("bug"), "session"))
    assert raised.value.__cause__ is not raised.value, "who logs it follows the causes"


async def test_closing_the_deltas_cancels_the_remote_call(
    model: RemoteModel, handle: Handle
) -> None:
    probe = ReplicaProbe(handle)
    before = (await probe.stats())["num_aborted"]
    deltas = model.generate(a_request("endless", 65), "session")
    assert (await anext(deltas)).text == "A"
    await deltas.aclose()
    async with asyncio.timeout(10):
        while (await probe.stats())["num_aborted"] == before:
            await asyncio.sleep(0.01)


async def test_an_ingress_that_is_gone_frees_the_replica(
    model: RemoteModel, handle: Handle
) -> None:
    """Its connections end with it, whatever Ray knows of it."""
    probe = ReplicaProbe(handle)
    before = (await probe.stats())["num_aborted"]
    await anext(model.generate(a_request("endless", 65), "session"))
    await model.close()
    async with asyncio.timeout(2):
        while (await probe.stats())["num_aborted"] == before:
            await asyncio.sleep(0.01)


async def test_a_replica_that_dies_costs_a_pause(model: RemoteModel, tmp_path: Path) -> None:
    file = tmp_path / "pids"
    deltas = await told(model, a_request(f"once:{file}", *STORY))
    assert [i for delta in deltas for i in delta.token_ids] == [*STORY, 0]
    assert "".join(delta.text for delta in deltas) == "".join(map(chr, STORY))
    assert {delta.num_told_tokens for delta in deltas} == {0}, "it is one reply for its reader"
    assert {delta.num_cached_tokens for delta in deltas[-2:]} == {0}, "as the first replica said"
    (first, _), (second, num_told) = (line.split() for line in file.read_text().splitlines())
    assert first != second and 0 < int(num_told) <= 5


async def test_what_kills_two_groups_is_given_to_no_third(
    model: RemoteModel, tmp_path: Path
) -> None:
    file = tmp_path / "pids"
    ids: list[int] = []
    with pytest.raises(EngineDeadError, match="2 groups"):
        async for delta in model.generate(a_request(f"each:{file}", *STORY), "session"):
            ids += delta.token_ids
    assert tuple(ids) == STORY[: len(ids)], "nothing twice"
    assert len(file.read_text().splitlines()) == 2


async def test_a_replica_of_another_make_up_goes_on_with_nothing(
    model: RemoteModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve_app.remote.told.MAX_SENDS", 2)
    file = tmp_path / "pids"
    deltas = model.generate(a_request(f"once:{file}", *STORY), "session")
    await anext(deltas)
    listener: Any = model._listener
    (connection,) = listener._connections
    connection.peer = type(connection.peer)(connection.peer.name, "another")
    for inlet in listener._inlets.values():
        inlet.peer = connection.peer
    with pytest.raises(EngineDeadError, match="another reply"):
        async for _ in deltas:
            pass


async def test_a_replica_that_stands_still_is_given_up(model: RemoteModel, tmp_path: Path) -> None:
    """Here it is the only one, so the reply goes on when it does, or when it was replaced."""
    file = tmp_path / "pids"
    ids: list[int] = []
    stopped_at = 0.0
    async for delta in model.generate(a_request(str(file), *STORY), "session"):
        ids += delta.token_ids
        if not stopped_at and len(ids) > 3:
            stopped_at = time.monotonic()
            pid = int(file.read_text().split()[0])
            os.kill(pid, signal.SIGSTOP)
            asyncio.get_running_loop().call_later(4.0, os.kill, pid, signal.SIGCONT)
    assert ids == [*STORY, 0]
    assert time.monotonic() - stopped_at > 1.5
    assert len(file.read_text().splitlines()) == 2, "the old stream was dropped for good"


async def test_a_call_that_has_ended_is_not_cancelled() -> None:
    """That would be a message to the replica for each pass."""
    handle = EndingHandle()
    model = over(handle)
    assert [delta.text for delta in await told(model, a_request("r", 65))] == ["A"]
    assert handle.num_cancelled == 0
    handle.is_endless = True
    deltas = model.generate(a_request("r", 65), "session")
    await anext(deltas)
    await deltas.aclose()
    assert handle.num_cancelled == 1
    await model.close()


@pytest.mark.parametrize("error", [*UNAVAILABLE, asyncio.CancelledError()])
async def test_a_model_without_replicas_raises_engine_dead(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve_app.remote.told.FIRST_PAUSE_S", 0.001)
    unreachable = UnreachableHandle(error)
    model = over(unreachable)
    with pytest.raises(EngineDeadError):
        await told(model, a_request("r", 65))
    assert unreachable.num_calls == MAX_SENDS
    await model.close()


@pytest.mark.parametrize("error", [*UNAVAILABLE, asyncio.CancelledError()])
async def test_a_model_without_replicas_is_unhealthy(error: BaseException) -> None:
    probe = ReplicaProbe(cast(DeploymentHandle[Any], UnreachableHandle(error)))
    assert await probe.groups() == ()
    assert not await probe.is_ready()
    with pytest.raises(EngineDeadError):
        await probe.stats()


async def test_health_is_that_of_the_engine(handle: Handle) -> None:
    probe = ReplicaProbe(handle)
    assert await probe.groups() == (GroupState("serving", "one", 1),)
    assert await probe.is_ready()
    await handle.become_unhealthy.remote()
    assert await probe.groups() == (GroupState("failed", "one", 1),)
    assert not await probe.is_ready()
