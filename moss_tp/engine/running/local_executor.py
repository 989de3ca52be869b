"""All ranks on this machine: rank 0 in this process, the others as child processes."""

from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection, wait

import torch

from moss_tp.device import rank_device, threads_per_rank
from moss_tp.engine.running.driver import Driver
from moss_tp.engine.running.kv_budget import choose_num_blocks
from moss_tp.engine.running.rank_process import READY, UP, RankProcess
from moss_tp.engine.running.runner import Runner
from moss_tp.engine.running.sentinel import Sentinel
from moss_tp.engine.running.step import Step
from moss_tp.engine.running.worker import RankSpec, build_rank
from moss_tp.engine.scheduling.batch import Batch
from moss_tp.engine_config import EngineConfig
from moss_tp.parallel.tp_group import TPGroup
from moss_tp.sampling.row import SamplingRow

HOST = "127.0.0.1"


class LocalExecutor:
    """See `Executor`. When a rank exits or hangs, all of them are killed at once, so that no
    collective waits for it, and every later step raises EngineDeadError.

    Sets the number of torch's threads in this process, until it is closed.
    """

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._ranks: list[RankProcess] = []
        self._sentinel: Sentinel | None = None
        self._num_threads = threads_per_rank(config.tp_size, config.num_threads)
        self._num_threads_before = torch.get_num_threads()
        try:
            self._driver = self._start()
        except BaseException as error:
            cause = self._sentinel.explain(error) if self._sentinel else error
            self._kill()
            self._reap()
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
        return [rank.pid for rank in self._ranks]

    @property
    def max_in_flight(self) -> int:
        return self._driver.max_in_flight

    def submit(self, batch: Batch, rows: Sequence[SamplingRow]) -> Step:
        return self._driver.submit(batch, rows)

    def watch(self, on_death: Callable[[str], None]) -> None:
        self._driver.watch(on_death)

    def close(self) -> None:
        if self._driver.is_closed:
            return
        if not self._driver.is_alive:
            self._kill()  # they may hang, or wait for a rank that does
        self._driver.close()
        for rank in self._ranks:
            rank.wait()
        self._reap()

    def _start(self) -> Driver:
        """Starts and loads all ranks at the same time."""
        config = self._config
        if config.tp_size == 1:
            runner = build_rank(self._spec(0, port=0))
            num_blocks = choose_num_blocks(runner, config)
        else:
            runner, num_blocks = self._start_group()
        limits = config.step_limit_s, config.traits.min_step_limit_s
        return Driver(runner, num_blocks, *limits)

    def _start_group(self) -> tuple[Runner, int]:
        store = TPGroup.listen(HOST)
        for rank in range(1, self._config.tp_size):
            self._ranks.append(RankProcess(rank, self._num_threads))
        for process in self._ranks:
            process.expect(UP)
        for process in self._ranks:
            process.connection.send(self._spec(process.rank, store.port))
        runner = build_rank(self._spec(0, store.port))
        for process in self._ranks:
            process.expect(READY)
        self._sentinel = Sentinel(self._first_loss, partial(self._give_up, runner))
        num_blocks = choose_num_blocks(runner, self._config)
        for process in self._ranks:
            process.connection.send(num_blocks)
        return runner, num_blocks

    def _spec(self, rank: int, port: int) -> RankSpec:
        # A single rank takes the current device.
        device = self._config.device
        if self._config.tp_size > 1:
            device = rank_device(device, rank)
        return RankSpec(self._config, rank, device, (HOST, port), self._num_threads)

    def _give_up(self, runner: Runner, reason: str) -> None:
        """A rank was lost before there is a driver; rank 0 waits for none then."""
        runner.give_up(reason)
        self._kill()

    def _first_loss(self) -> str:
        """A rank's pipe becomes readable only when the rank fails or exits."""
        by_connection = {rank.connection: rank for rank in self._ranks}
        first = wait(list(by_connection))[0]
        assert isinstance(first, Connection)
        rank = by_connection[first]
        return f"rank {rank.rank} (process {rank.pid}) ended: {rank.last_message()}"

    def _kill(self) -> None:
        for rank in self._ranks:
            rank.kill()

    def _reap(self) -> None:
        for rank in self._ranks:
            rank.wait()
        if self._sentinel:
            self._sentinel.join()
        for rank in self._ranks:
            rank.connection.close()
        torch.set_num_threads(self._num_threads_before)
