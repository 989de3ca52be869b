"""The processes of the ranks above 0: placed and starting, with nothing loaded yet.

It imports no torch: starting the processes before importing torch here halves the startup time.
It does not depend on the engine; an executor drives the processes.
"""

from contextlib import ExitStack
from typing import cast

import ray
from ray.actor import ActorHandle

from cluster.launch.local_ray import local_ray
from cluster.ranks.placement import Placement, rank_options
from cluster.ranks.worker import TPWorker


class WorkerGroup:
    """`workers` are the ranks 1 to `tp_size - 1` in order; rank 0 is the caller.

    Starts a local Ray if none is running. Raises ConfigError when there is no room.
    """

    def __init__(self, tp_size: int, device: str) -> None:
        self._resources = ExitStack()  # closed last first
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
