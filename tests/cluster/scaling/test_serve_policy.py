"""The policy within Serve's own code: what it reads, and that Serve adds nothing."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pytest
from ray.serve._private.autoscaling_state import _resolve_policy_callable
from ray.serve._private.common import DeploymentID, ReplicaID, TimeStampedValue
from ray.serve.autoscaling_policy import _apply_autoscaling_config
from ray.serve.config import AutoscalingContext

from cluster.scaling.policy import TURN_TOKENS, Load, Scaling
from cluster.scaling.replicas import Replicas
from cluster.scaling.serve_policy import PUSH_S, STALE_S, autoscaling_config, scene_of

SCALING = Scaling(Replicas(0, 4), up_after_s=2, down_after_s=10)
MODEL = DeploymentID("MossServer", "moss")
IDLE = Load(0, 0, 0, 0, 100, 4)
NOW_S = 1e9


class Serve:
    """One deployment, as the controller sees it, and a clock."""

    def __init__(self, wanted: int = 1) -> None:
        self.config = autoscaling_config(SCALING)
        self.policy = _apply_autoscaling_config(_resolve_policy_callable(self.config.policy))
        self.wanted, self.now_s, self.num_queued = wanted, NOW_S, 0.0
        self.num_ready = wanted
        self.state: dict[str, Any] = {}
        self.loads: Mapping[str, Load] = {"a": IDLE}
        self.said_ago_s = 0.5

    def context(self) -> AutoscalingContext:
        said_at = self.now_s - self.said_ago_s
        series: dict[str, dict[ReplicaID, list[TimeStampedValue]]] = {}
        for replica, load in self.loads.items():
            for name, value in asdict(load).items():
                points = [TimeStampedValue(said_at - 1, 0.0), TimeStampedValue(said_at, value)]
                series.setdefault(name, {})[ReplicaID(replica, MODEL)] = points
        return AutoscalingContext(
            deployment_id=MODEL,
            deployment_name=MODEL.name,
            app_name=MODEL.app_name,
            current_num_replicas=self.num_ready,
            target_num_replicas=self.wanted,
            running_replicas=[],
            total_num_requests=lambda: self.num_queued,
            total_queued_requests=lambda: self.num_queued,
            aggregated_metrics=None,
            raw_metrics=lambda: series,
            capacity_adjusted_min_replicas=0,
            capacity_adjusted_max_replicas=4,
            policy_state=self.state,
            last_scale_up_time=None,
            last_scale_down_time=None,
            current_time=self.now_s,
            config=self.config,
        )

    def run(self, seconds: float) -> int:
        """As the controller does, ten times a second. All wanted replicas are ready at once."""
        for _ in range(round(seconds * 10)):
            self.wanted, self.state = self.policy(self.context())
            self.num_ready = self.wanted
            self.now_s += 0.1
        return self.wanted


def busy(turns: float) -> Load:
    return Load(turns, turns * TURN_TOKENS, 0, 0, 100, 4)


def test_the_last_figures_of_each_ready_replica_are_seen() -> None:
    serve = Serve(wanted=3)
    serve.num_ready, serve.num_queued = 2, 1.5
    serve.loads = {"b": busy(2), "a": IDLE}
    scene = scene_of(serve.context())
    assert (scene.wanted, scene.num_ready, scene.num_queued) == (3, 2, 1.5)
    assert scene.loads == [IDLE, busy(2)] and scene.now_s == NOW_S


def test_old_figures_and_half_ones_are_none() -> None:
    serve = Serve()
    serve.said_ago_s = STALE_S + 1
    assert scene_of(serve.context()).loads == []
    serve.said_ago_s = 1
    context = serve.context()
    assert context.raw_metrics is not None
    del context.raw_metrics["num_slots"]
    assert scene_of(context).loads == []


def test_serve_s_own_delays_and_factors_do_nothing() -> None:
    serve = Serve()
    serve.loads = {"a": busy(8)}  # two replicas' worth
    assert serve.run(1.9) == 1
    assert serve.run(0.3) == 3
    serve.loads = dict.fromkeys("abc", IDLE)
    assert serve.run(9.8) == 3
    assert serve.run(0.4) == 1
    assert serve.run(9.8) == 1
    assert serve.run(0.4) == 0


def test_a_request_starts_the_first_replica_at_once() -> None:
    serve = Serve(wanted=0)
    serve.loads = {}
    assert serve.run(5) == 0
    serve.num_queued = 0.2
    assert serve.run(0.1) == 1


def test_a_decision_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    serve = Serve()
    serve.loads = {"a": busy(8)}
    with caplog.at_level("INFO", "ray.serve"):
        serve.run(3)
    assert caplog.messages[-1] == "replicas: 1 to 3, 1 are ready; there is work for 2.00"


def test_handles_and_replicas_push_every_second() -> None:
    """The field that they read, in all processes; no variable is read by this version of Ray."""
    config = autoscaling_config(SCALING)
    assert config.metrics_interval_s == PUSH_S < config.look_back_period_s
    assert (config.min_replicas, config.initial_replicas, config.max_replicas) == (0, 1, 4)
