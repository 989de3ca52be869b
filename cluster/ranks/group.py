"""The processes of ranks 1..: placed and starting, told nothing yet.

It imports no torch: starting them first and importing it then takes half the time. They are led
by whoever holds the group; it knows no engine.
"""

from contextlib import ExitStack
from typing import cast

import ray
from ray.actor import ActorHandle

from cluster.launch.local_ray import local_ray
from cluster.ranks.placement import Placement, rank_options
from cluster.ranks.worker import TPWorker


class WorkerGroup:
    """`workers` of a group of `tp_size` ranks, in the order of their ranks; rank 0 is the caller.

    Starts a Ray of its own where there is none. Raises ConfigError when there is no place.
    """

    def __init__(self, tp_size: int, device: str) -> None:
        self._resources = ExitStack()  # what `close` gives back, last first
        try:
            if not ray.is_initialized():
                self._resources.enter_context(local_ray(num_cpus=tp_size + 1))
            self.placement = Placement.current_or_new(tp_size, device)
            self._resources.callback(self.placement.release)
            self.workers = [self._start(rank, device) for rank in range(1, tp_size)]
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends the processes. Idempotent."""
        self._resources.close()

    def _start(self, rank: int, device: str) -> ActorHandle[TPWorker]:
        options = ray.remote(TPWorker).options(
            scheduling_strategy=self.placement.strategy(rank), **rank_options(device)
        )
        worker = cast(ActorHandle[TPWorker], options.remote())
        self._resources.callback(ray.kill, worker)
        return worker
