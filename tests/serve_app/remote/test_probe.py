"""The health of each group of the model, asked of all replicas at once."""

import asyncio
from typing import Any, Self, cast

import pytest
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from moss_tp.errors import EngineDeadError
from serve_app.groups import ASLEEP, GroupState
from serve_app.remote import probe as probe_module
from serve_app.remote.probe import HEALTH_TIMEOUT_S, ReplicaProbe


class Broadcast:
    """A model with replicas that answer after so many seconds: of -1, that it has failed, and of
    -2, with an error, both at once."""

    def __init__(self, *delays_s: float) -> None:
        self._delays_s = delays_s

    def broadcast(self, method: str) -> Self:
        assert method in ("state", "stats", "make_up")
        self._method = method
        return self

    async def _fetch_replica_results_async(self) -> list["Answer"]:
        return [Answer(self._method, *pair) for pair in enumerate(self._delays_s)]


class Answer:
    def __init__(self, method: str, number: int, delay_s: float) -> None:
        self._method, self._number, self._delay_s = method, number, delay_s

    async def get_async(self) -> object:
        if self._delay_s == -2:
            raise EngineDeadError("a rank is dead")
        await asyncio.sleep(max(0, self._delay_s))
        if self._method == "make_up":
            return {"weights": "new"}
        if self._method == "stats":
            return {"replica": str(self._number), "steps": 7, "rank_pids": (self._number,)}
        return GroupState("failed" if self._delay_s < 0 else "serving", str(self._number), 2)


def probe(*delays_s: float) -> ReplicaProbe:
    return ReplicaProbe(cast(DeploymentHandle[Any], Broadcast(*delays_s)))


@pytest.mark.parametrize(
    ("delays_s", "states", "within_s"),
    [
        ((0, 0), ("serving", "serving"), 0.3),
        ((0, -1, 0), ("serving", "failed", "serving"), 0.3),
        ((0, -2), ("serving", "silent"), 0.3),
        ((60, 0), ("silent", "serving"), 1.5),  # the stuck one is not waited for
        ((1.0, 60), ("serving", "silent"), HEALTH_TIMEOUT_S),  # patience while none has answered
        ((1.0, -1), ("serving", "failed"), HEALTH_TIMEOUT_S),  # nor is a bad answer enough
        ((60, 60), ("silent", "silent"), HEALTH_TIMEOUT_S),
    ],
)
async def test_each_group_is_listed_and_a_stuck_one_does_not_hold_the_answer(
    delays_s: tuple[float, ...], states: tuple[str, ...], within_s: float
) -> None:
    async with asyncio.timeout(within_s):
        groups = await probe(*delays_s).groups()
    assert tuple(group.state for group in groups) == states
    named = [str(n) if s != "silent" else None for n, s in enumerate(states)]
    assert [group.replica for group in groups] == named


async def test_those_that_load_are_listed_behind_and_do_not_serve() -> None:
    loading = GroupState("loading", "7", 2, "weights")

    async def now_loading() -> list[GroupState]:
        return [loading, GroupState("loading", "0")]  # the second has just come up

    handle = cast(DeploymentHandle[Any], Broadcast(0))
    groups = await ReplicaProbe(handle, loading=now_loading).groups()
    assert groups == (GroupState("serving", "0", 2), loading)
    alone = ReplicaProbe(cast(DeploymentHandle[Any], Nobody()), loading=now_loading)
    assert [group.state for group in await alone.groups()] == ["loading", "loading"]
    assert not await alone.is_ready()


async def test_stats_are_sums_of_the_replicas_that_answer() -> None:
    stats = await probe(0, 0, 60).stats()
    assert (stats["steps"], stats["rank_pids"]) == (14, [0, 1])
    assert [each["replica"] for each in stats["replicas"]] == ["0", "1"]


async def test_without_an_answer_there_are_no_stats() -> None:
    with pytest.raises(EngineDeadError, match="no replica"):
        await probe(-2).stats()


class Nobody(Broadcast):
    """A model without replicas."""

    async def _fetch_replica_results_async(self) -> list[Answer]:
        raise DeploymentUnavailableError(DeploymentID("MossServer"))


@pytest.mark.parametrize("may_sleep", [True, False])
async def test_a_model_that_sleeps_is_ready(may_sleep: bool) -> None:
    handle = cast(DeploymentHandle[Any], Nobody())
    asked = ReplicaProbe(handle, may_sleep=may_sleep)
    assert await asked.groups() == ((ASLEEP,) if may_sleep else ())
    assert await asked.is_ready() == may_sleep
    if may_sleep:
        assert await asked.stats() == {"replicas": []}
    else:
        with pytest.raises(EngineDeadError, match="no replica"):
            await asked.stats()


class Updated(Broadcast):
    """A model whose replicas were replaced since it was asked first."""

    async def remote(self) -> dict[str, str]:
        return {"weights": "old"}

    @property
    def make_up(self) -> Self:
        return self


async def test_after_an_update_the_make_up_is_the_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A moment later, and nobody waits for it."""
    monkeypatch.setattr(probe_module, "MAKE_UP_STALE_S", -1.0)
    model = ReplicaProbe(cast(DeploymentHandle[Any], Updated(0)))
    assert await model.make_up() == {"weights": "old"}
    assert await model.make_up() == {"weights": "old"}
    async with asyncio.timeout(5):
        while await model.make_up() != {"weights": "new"}:
            await asyncio.sleep(0.01)
