"""Where the ranks of one tensor-parallel group run: a placement group with one bundle per rank.

All bundles are on one node (STRICT_PACK): ranks exchange a tensor in every block of every step.
It does not depend on the engine and starts no rank.
"""

import os
from dataclasses import dataclass

import ray
from ray.util.placement_group import (
    PlacementGroup,
    get_current_placement_group,
    placement_group,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from moss_tp.errors import ConfigError

STRATEGY = "STRICT_PACK"
PLACE_TIMEOUT_S = 60


def rank_bundle(device: str) -> dict[str, float]:
    """The resources Ray reserves for one rank. Ray counts CPUs, it does not bind them."""
    return {"CPU": 1, "GPU": 1} if device == "cuda" else {"CPU": 1}


def rank_options(device: str) -> dict[str, float]:
    """The same as actor options. On CUDA the actor then sees only its own device."""
    return {"num_cpus": 1, "num_gpus": 1} if device == "cuda" else {"num_cpus": 1}


@dataclass(frozen=True)
class Placement:
    """A placement group, and whether `release` removes it."""

    group: PlacementGroup
    is_owned: bool

    @classmethod
    def current_or_new(cls, tp_size: int, device: str) -> "Placement":
        """The group this process runs in (in a Serve replica), otherwise a new one on this node.

        Raises ConfigError when the node has no room for it.
        """
        current = get_current_placement_group()
        if current is not None:
            return cls(current, is_owned=False)
        # Rank 0 is the calling process, so the group must be on its node.
        here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
        group = placement_group(
            [rank_bundle(device)] * tp_size,
            strategy=STRATEGY,
            bundle_label_selector=[here] * tp_size,
        )
        if not group.wait(PLACE_TIMEOUT_S):
            remove_placement_group(group)
            raise ConfigError(
                f"this node has no room for {tp_size} ranks of {rank_bundle(device)} each"
            )
        return cls(group, is_owned=True)

    def strategy(self, rank: int) -> PlacementGroupSchedulingStrategy:
        """Schedules an actor into the bundle of `rank`."""
        return PlacementGroupSchedulingStrategy(self.group, placement_group_bundle_index=rank)

    def own_device(self, device: str) -> str:
        """Rank 0's device as the calling process numbers them.

        A replica sees only the GPU of its bundle. A driver process sees all GPUs of the machine
        and must use the one that Ray reserved in bundle 0.
        """
        if device != "cuda" or not self.is_owned:
            return device
        ids = ray.remote(_gpu_ids).options(
            num_cpus=0, num_gpus=1, scheduling_strategy=self.strategy(0)
        )
        return f"cuda:{_own_index(ray.get(ids.remote())[0])}"

    def release(self) -> None:
        if self.is_owned:
            remove_placement_group(self.group)


def _gpu_ids() -> list[str]:
    return [str(gpu) for gpu in ray.get_gpu_ids()]


def _own_index(gpu: str) -> int:
    """The number that this process gives the GPU that Ray calls `gpu`, by its place among those
    that the process was started with, if it was not with all."""
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return visible.index(gpu) if gpu in visible else int(gpu)
