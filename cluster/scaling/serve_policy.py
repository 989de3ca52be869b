"""The policy as Ray Serve's controller calls it, ten times a second, and how it is set up.

Serve would apply delays and factors of its own to what a policy says; here they do nothing.
"""

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, Protocol

from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

from cluster.scaling.policy import Load, Pending, Scaling, Scene, decide, need
from cluster.scaling.replicas import Replicas

logger = logging.getLogger("ray.serve")

POLICY = "cluster.scaling.serve_policy:ServePolicy"
# How often replicas and handles say what they have to do. Ray's default is ten seconds.
PUSH_S = 1.0
# What they say is a point each 0.6 s (a fifth of it); the last one counts.
LOOK_BACK_S = 3.0
# A replica that has said nothing for so long may do anything.
STALE_S = 10.0


class Point(Protocol):
    """See `ray.serve._private.common.TimeStampedValue`."""

    @property
    def timestamp(self) -> float: ...
    @property
    def value(self) -> float: ...


Series = Mapping[str, Mapping[Any, Sequence[Point]]]


class Context(Protocol):
    """The part of `ray.serve.config.AutoscalingContext` that is read."""

    @property
    def target_num_replicas(self) -> int: ...
    @property
    def current_num_replicas(self) -> int: ...
    @property
    def total_queued_requests(self) -> float | None: ...
    @property
    def raw_metrics(self) -> Series | None: ...
    @property
    def policy_state(self) -> Mapping[str, Any]: ...
    @property
    def current_time(self) -> float | None: ...


class ServePolicy:
    """`decide` on what Serve knows. Without a replica Serve asks nobody: with a request it starts
    one."""

    def __init__(self, least: int, most: int, up_after_s: float, down_after_s: float) -> None:
        self._scaling = Scaling(Replicas(least, most), up_after_s, down_after_s)

    def __call__(self, context: Context) -> tuple[int, dict[str, Any]]:
        """The number of replicas, and the state for the next call."""
        scene = scene_of(context)
        pending = Pending(**context.policy_state.get("pending", {}))
        number, pending = decide(self._scaling, scene, pending)
        if number != scene.wanted:
            logger.info(
                f"replicas: {scene.wanted} to {number}, {scene.num_ready} are ready; "
                f"there is work for {need(scene.loads):.2f}"
            )
        return number, {"pending": asdict(pending)}


def scene_of(context: Context) -> Scene:
    """What the ready replicas have said last."""
    now_s = context.current_time or 0.0
    return Scene(
        wanted=context.target_num_replicas,
        num_ready=context.current_num_replicas,
        loads=_loads(context.raw_metrics or {}, now_s - STALE_S),
        num_queued=context.total_queued_requests or 0.0,
        now_s=now_s,
    )


def _loads(series: Series, since_s: float) -> list[Load]:
    """Of replicas that have said all figures of it since then."""
    names = [field.name for field in fields(Load)]
    replicas = set.intersection(*(set(series.get(name, ())) for name in names))
    points = [[series[name][replica] for name in names] for replica in sorted(replicas, key=str)]
    fresh = (each for each in points if all(p and p[-1].timestamp >= since_s for p in each))
    return [Load(*(point[-1].value for point in each)) for each in fresh]


def autoscaling_config(scaling: Scaling) -> AutoscalingConfig:
    """For `serve.deployment`, whose class says its figures in `record_autoscaling_stats`."""
    replicas = scaling.replicas
    arguments = {
        "least": replicas.least,
        "most": replicas.most,
        "up_after_s": scaling.up_after_s,
        "down_after_s": scaling.down_after_s,
    }
    with warnings.catch_warnings():
        # It is deprecated, and the variables that are to take its place are read by nothing.
        warnings.filterwarnings("ignore", ".*metrics_interval_s", DeprecationWarning)
        policy: Any = AutoscalingPolicy
        return AutoscalingConfig(
            min_replicas=replicas.least,
            initial_replicas=replicas.at_start,
            max_replicas=replicas.most,
            metrics_interval_s=PUSH_S,
            look_back_period_s=LOOK_BACK_S,
            upscale_delay_s=0,
            downscale_delay_s=0,
            policy=policy(policy_function=POLICY, policy_kwargs=arguments),
        )
