"""The health of each group of the model, asked of all replicas at once."""

import asyncio
from typing import Any, Self, cast

import pytest
from ray.serve.handle import DeploymentHandle

from moss_tp.errors import EngineDeadError
from serve_app.remote.probe import HEALTH_TIMEOUT_S, ReplicaProbe


class Broadcast:
    """A model with replicas that answer after so many seconds; a negative one fails at once."""

    def __init__(self, *delays_s: float) -> None:
        self._delays_s = delays_s

    def broadcast(self, method: str) -> Self:
        assert method == "check_health"
        return self

    async def _fetch_replica_results_async(self) -> list["Answer"]:
        return [Answer(delay_s) for delay_s in self._delays_s]


class Answer:
    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s

    async def get_async(self) -> None:
        if self._delay_s < 0:
            raise EngineDeadError("a rank is dead")
        await asyncio.sleep(self._delay_s)


@pytest.mark.parametrize(
    ("delays_s", "groups", "within_s"),
    [
        ((0, 0), (True, True), 0.3),
        ((0, -1, 0), (True, False, True), 0.3),
        ((60, 0), (False, True), 1.5),  # the stuck one is not waited for
        ((1.0, 60), (True, False), HEALTH_TIMEOUT_S),  # patience while none has answered
        ((60, 60), (False, False), HEALTH_TIMEOUT_S),
    ],
)
async def test_each_group_is_listed_and_a_stuck_one_does_not_hold_the_answer(
    delays_s: tuple[float, ...], groups: tuple[bool, ...], within_s: float
) -> None:
    model = ReplicaProbe(cast(DeploymentHandle[Any], Broadcast(*delays_s)))
    async with asyncio.timeout(within_s):
        assert await model.groups() == groups
