"""Ranks as Ray actors: rank 0 is the calling process, the others are in its placement group.

Works in a Serve replica, which brings its placement group, and outside Serve
(`LLM(executor="ray")`), where it creates one. Steps do not go through Ray: rank 0 drives the
workers by collectives, and Ray only starts them, reports their end and ends them.
"""

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress

import ray
from ray.exceptions import RayError

from cluster.errors import unwrapped
from cluster.ranks.group import WorkerGroup
from moss_tp.device import threads_per_rank
from moss_tp.engine.running.driver import Driver
from moss_tp.engine.running.kv_budget import choose_num_blocks
from moss_tp.engine.running.runner import Runner
from moss_tp.engine.running.sentinel import Sentinel
from moss_tp.engine.running.step import Step
from moss_tp.engine.running.worker import RankSpec, build_rank
from moss_tp.engine.scheduling.batch import Batch
from moss_tp.engine_config import EngineConfig
from moss_tp.parallel.tp_group import TPGroup
from moss_tp.sampling.row import SamplingRow

HOST = "127.0.0.1"  # a group never leaves its node
STOP_TIMEOUT_S = 5


class RayExecutor:
    """See `Executor`. Constructing it loads the model on every rank.

    `group` holds worker processes that were started before; it is closed with the executor.
    Raises ConfigError when there is no room for the ranks, and whatever loading raised.
    """

    def __init__(self, config: EngineConfig, group: WorkerGroup | None = None) -> None:
        self._group = group or WorkerGroup(config.tp_size, config.device)
        self._rank_pids: list[int] = []
        self._loops: list[ray.ObjectRef[None]] = []  # one per worker, done when its loop ends
        self._sentinel: Sentinel | None = None
        try:
            self._driver = self._start(config)
        except RayError as error:
            self._group.close()
            raise unwrapped(error) from error
        except BaseException as error:
            cause = self._sentinel.explain(error) if self._sentinel else error
            self._group.close()
            if cause is error:
                raise
            raise cause from error
        self._driver.watch(lambda reason: self._kill())
        if self._sentinel:
            self._sentinel.redirect(self._driver.fail)

    @property
    def num_blocks(self) -> int:
        return self._driver.num_blocks

    @property
    def late_step(self) -> str | None:
        return self._driver.late_step

    @property
    def forward_s(self) -> float:
        return self._driver.forward_s

    @property
    def rank_pids(self) -> list[int]:
        """Process ids of the ranks above 0."""
        return list(self._rank_pids)

    @property
    def max_in_flight(self) -> int:
        return self._driver.max_in_flight

    def submit(self, batch: Batch, rows: Sequence[SamplingRow]) -> Step:
        return self._driver.submit(batch, rows)

    def watch(self, on_death: Callable[[str], None]) -> None:
        self._driver.watch(on_death)

    def close(self) -> None:
        self._driver.close()
        if self._driver.is_alive:
            ray.wait(self._loops, num_returns=len(self._loops), timeout=STOP_TIMEOUT_S)
        self._group.close()

    def _start(self, config: EngineConfig) -> Driver:
        """Loads all ranks at the same time, rank 0's shard in this process."""
        workers = self._group.workers
        self._rank_pids = ray.get([worker.pid.remote() for worker in workers])
        store = TPGroup.listen(HOST)  # serves until all have joined
        num_threads = threads_per_rank(config.tp_size, config.num_threads)

        def spec(rank: int, device: str) -> RankSpec:
            return RankSpec(config, rank, device, (HOST, store.port), num_threads)

        loading = [
            worker.build.remote(spec(rank, config.device))
            for rank, worker in enumerate(workers, start=1)
        ]
        runner = build_rank(spec(0, self._group.placement.own_device(config.device)))
        ray.get(loading)
        preparing = [worker.prepare.remote() for worker in workers]
        self._watch(preparing, runner)
        num_blocks = choose_num_blocks(runner, config)
        ray.get(preparing)
        self._loops = [worker.run_loop.remote(num_blocks) for worker in workers]
        self._watch(self._loops, runner)
        limits = config.step_limit_s, config.traits.min_step_limit_s
        return Driver(runner, num_blocks, *limits)

    def _kill(self) -> None:
        """Ends the workers without Ray, which takes its time with a stopped process.

        So no collective waits for them, and a group that replaces this one finds their resources.
        """
        for pid in self._rank_pids:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    def _watch(self, calls: "Sequence[ray.ObjectRef[None]]", runner: Runner) -> None:
        """Of each worker. Until there is a driver, rank 0 waits for no rank once one is lost."""

        def give_up(reason: str) -> None:
            runner.give_up(reason)
            self._kill()

        if calls:
            self._sentinel = Sentinel(lambda: self._first_loss(calls), give_up)

    def _first_loss(self, calls: "Sequence[ray.ObjectRef[None]]") -> str | None:
        left = list(calls)
        while left:
            (ended,), left = ray.wait(left, num_returns=1)
            try:
                ray.get(ended)
            except Exception as error:
                message = str(unwrapped(error) if isinstance(error, RayError) else error)
                pid = self._rank_pids[calls.index(ended)]
                reason = message.partition("\n")[0]
                return f"rank {calls.index(ended) + 1} (process {pid}) ended: {reason}"
        return None
