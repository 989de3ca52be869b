"""Ranks as Ray actors: rank 0 is the calling process, the others sit in its placement group.

Works in a Serve replica, which brings its group, and outside Serve (`LLM(executor="ray")`), where
it makes one. No step goes through Ray: ranks are led by collectives, and Ray only starts them,
tells of their end and ends them.
"""

import threading
from collections.abc import Callable, Sequence

import ray
from ray.exceptions import RayError

from cluster.errors import unwrapped
from cluster.ranks.group import WorkerGroup
from cluster.ranks.threads import use_fair_threads
from moss_tp.engine.running.batch import Batch
from moss_tp.engine.running.driver import Leader
from moss_tp.engine.running.kv_budget import choose_num_blocks
from moss_tp.engine.running.worker import RankSpec, build_rank
from moss_tp.engine_config import EngineConfig
from moss_tp.parallel.tp_group import TPGroup
from moss_tp.sampling.row import SampledToken, SamplingRow

HOST = "127.0.0.1"  # a group never leaves its node
STOP_TIMEOUT_S = 5


class RayExecutor:
    """See `Executor`. Constructing it loads the model on every rank.

    `group` holds ranks that were started before, and is closed with the executor.
    Raises ConfigError when there is no place for the ranks, and whatever loading raised.
    """

    def __init__(self, config: EngineConfig, group: WorkerGroup | None = None) -> None:
        self._group = group or WorkerGroup(config.tp_size, config.device)
        self._rank_pids: list[int] = []
        self._following: list[ray.ObjectRef[None]] = []
        self._lock = threading.Lock()  # guards the two below
        self._watchers: list[Callable[[str], None]] = []
        self._death: str | None = None
        try:
            self._leader = self._start(config)
        except RayError as error:
            self._group.close()
            raise unwrapped(error) from error
        except BaseException:
            self._group.close()
            raise
        self._leader.watch(self._tell)
        if self._following:
            threading.Thread(target=self._await_end, name="moss-ranks", daemon=True).start()

    @property
    def num_blocks(self) -> int:
        return self._leader.num_blocks

    @property
    def rank_pids(self) -> list[int]:
        """Processes of the ranks above 0."""
        return list(self._rank_pids)

    def execute(self, batch: Batch, rows: Sequence[SamplingRow]) -> list[SampledToken]:
        return self._leader.execute(batch, rows)

    def watch(self, on_death: Callable[[str], None]) -> None:
        """As the Protocol says; several may watch, and each is told in its turn."""
        with self._lock:
            self._watchers.append(on_death)
            reason = self._death
        if reason is not None:
            on_death(reason)

    def close(self) -> None:
        self._leader.close()
        if self._leader.is_alive:
            ray.wait(self._following, num_returns=len(self._following), timeout=STOP_TIMEOUT_S)
        self._group.close()

    def _start(self, config: EngineConfig) -> Leader:
        """Starts and loads all ranks at the same time; rank 0's shard here."""
        workers = self._group.workers
        self._rank_pids = ray.get([worker.pid.remote() for worker in workers])
        store = TPGroup.listen(HOST)  # serves until all have joined
        address = (HOST, store.port)
        loading = [
            worker.build.remote(RankSpec(config, rank, config.device, address))
            for rank, worker in enumerate(workers, start=1)
        ]
        use_fair_threads(config)
        own_device = self._group.placement.own_device(config.device)
        runner = build_rank(RankSpec(config, 0, own_device, address))
        ray.get(loading)
        num_blocks = choose_num_blocks(runner, config)
        self._following = [worker.follow.remote(num_blocks) for worker in workers]
        return Leader(runner, num_blocks, config.step_timeout_s)

    def _await_end(self) -> None:
        """The sentinel's thread: `follow` ends only with its rank, or when rank 0 says stop."""
        ended, _ = ray.wait(self._following, num_returns=1)
        if self._leader.is_closed:
            return
        rank = self._following.index(ended[0]) + 1
        self._leader.fail(f"rank {rank} (process {self._rank_pids[rank - 1]}) is gone")

    def _tell(self, reason: str) -> None:
        with self._lock:
            self._death = reason
            watchers = list(self._watchers)
        for on_death in watchers:
            on_death(reason)
