"""What replicas say comes to a real Ray Serve's controller every second."""

import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import serve
from ray.serve._private.common import DeploymentID

from cluster.scaling.policy import Scaling
from cluster.scaling.replicas import Replicas
from cluster.scaling.serve_policy import PUSH_S, autoscaling_config
from tests.cluster.scaling.streams import Streams

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    # Serve reads its own configuration again.
    pytest.mark.filterwarnings("ignore:.*metrics_interval_s:DeprecationWarning"),
]
SCALING = Scaling(Replicas(1, 2))
STREAM_S = 4.0


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
    yield serve.run(deployment.bind(STREAM_S), name="scaled", route_prefix=None)
    end: Any = serve.shutdown
    end()


def last_push() -> float:
    """The time of the last figures that the controller has of a replica."""
    context: Any = import_module("ray.serve.context")
    controller = context._get_global_client()._controller
    deployment = DeploymentID("Streams", "scaled")
    found = ray.get(controller._get_metrics_for_deployment_for_testing.remote(deployment))
    return max((series[-1].timestamp for series in found.get("num_slots", ()) if series), default=0)


def test_a_replica_says_its_figures_every_second(handle: Any) -> None:
    times = set()
    until = time.monotonic() + 6 * PUSH_S
    reading = handle.options(stream=True).stream.remote()
    while time.monotonic() < until:
        times.add(last_push())
        time.sleep(0.1)
    assert len(times - {0}) >= 3, "by Ray's default it would be one"
    assert len(list(reading)) == int(STREAM_S * 10)
