"""The policy in a real Ray Serve: from one replica to none, by a request to one, to two."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import serve
from ray.serve._private.common import DeploymentID

from cluster.scaling.policy import TURN_TOKENS, Load, Scaling
from cluster.scaling.replicas import Replicas
from cluster.scaling.serve_policy import PUSH_S, autoscaling_config
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    # Serve reads its own configuration again.
    pytest.mark.filterwarnings("ignore:.*metrics_interval_s:DeprecationWarning"),
]
SCALING = Scaling(Replicas(0, 2), up_after_s=1, down_after_s=2)
STREAM_S = 4.0
# Of a busy machine, beyond the delays.
PATIENCE_S = 40


class Streams:
    """A replica that two streams fill."""

    def __init__(self) -> None:
        self._num_running = 0

    async def stream(self) -> AsyncIterator[int]:
        self._num_running += 1
        try:
            for number in range(int(STREAM_S * 10)):
                yield number
                await asyncio.sleep(0.1)
        finally:
            self._num_running -= 1

    def record_autoscaling_stats(self) -> dict[str, float]:
        num = self._num_running
        return asdict(Load(num, 0, num * TURN_TOKENS, num, 100, 2))


@pytest.fixture(scope="module")
def handle(ray_logs: Path) -> Iterator[Any]:
    options: dict[str, Any] = {
        "graceful_shutdown_timeout_s": 60,
        "graceful_shutdown_wait_loop_s": 0.2,
    }
    deployment = serve.deployment(
        ray_actor_options={"num_cpus": 1}, autoscaling_config=autoscaling_config(SCALING), **options
    )(Streams)
    serve.start(proxy_location="Disabled")
    yield serve.run(deployment.bind(), name="scaled", route_prefix=None)
    end: Any = serve.shutdown
    end()


def count(state: str = "RUNNING") -> int:
    states: dict[Any, int] = (
        serve.status().applications["scaled"].deployments["Streams"].replica_states
    )
    return sum(number for name, number in states.items() if getattr(name, "value", name) == state)


def is_there(number: int) -> bool:
    """Whether there are so many replicas, and none that starts or ends."""
    return wait_until(
        lambda: (count(), count("STARTING"), count("STOPPING")) == (number, 0, 0), PATIENCE_S
    )


def last_push() -> float:
    """The time of the last figures that the controller has of a replica."""
    context: Any = import_module("ray.serve.context")
    controller = context._get_global_client()._controller
    deployment = DeploymentID("Streams", "scaled")
    found = ray.get(controller._get_metrics_for_deployment_for_testing.remote(deployment))
    return max((series[-1].timestamp for series in found.get("num_slots", ()) if series), default=0)


async def read(handle: Any) -> int:
    return len([number async for number in handle.options(stream=True).stream.remote()])


def test_a_replica_says_its_figures_every_second(handle: Any) -> None:
    times = set()
    until = time.monotonic() + 6 * PUSH_S
    reading = [handle.options(stream=True).stream.remote() for _ in range(1)]
    while time.monotonic() < until:
        times.add(last_push())
        time.sleep(0.1)
    assert len(times - {0}) >= 3, "by Ray's default it would be one"
    assert len(list(reading[0])) == int(STREAM_S * 10)


def test_without_load_none_is_left_and_the_first_request_waits_for_one(handle: Any) -> None:
    assert is_there(0)
    began = time.monotonic()
    assert asyncio.run(read(handle)) == int(STREAM_S * 10)
    assert time.monotonic() - began < STREAM_S + PATIENCE_S
    assert is_there(0)


async def read_many(handle: Any, counts: list[int]) -> list[int]:
    """The lengths of the streams of four clients, who go when two replicas are there."""
    lengths: list[int] = []

    async def client() -> None:
        while not counts or counts[-1] < 2:
            lengths.append(await read(handle))

    async with asyncio.TaskGroup() as group, asyncio.timeout(2 * PATIENCE_S):
        for _ in range(4):
            group.create_task(client())
        while not counts or counts[-1] < 2:
            counts.append(await asyncio.to_thread(count))
            await asyncio.sleep(0.1)
    return lengths


def test_streams_end_whole_while_replicas_go(handle: Any) -> None:
    counts: list[int] = []
    lengths = asyncio.run(read_many(handle, counts))
    assert set(lengths) == {int(STREAM_S * 10)} and len(lengths) >= 4
    assert counts == sorted(counts)
    assert is_there(0)
