"""All ranks on this machine: rank 0 in this process, the others as its children."""

import os
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait

import torch

from moss_tp.engine.running.batch import Batch
from moss_tp.engine.running.driver import Leader
from moss_tp.engine.running.kv_budget import choose_num_blocks
from moss_tp.engine.running.rank_process import READY, UP, RankProcess
from moss_tp.engine.running.worker import RankSpec, build_rank
from moss_tp.engine_config import EngineConfig
from moss_tp.parallel.tp_group import TPGroup
from moss_tp.sampling.row import SampledToken, SamplingRow

HOST = "127.0.0.1"


class LocalExecutor:
    """See `Executor`. A rank that ends takes the group down at once: the others are killed, so
    that no collective waits for it, and every later step raises EngineDeadError.
    """

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._ranks: list[RankProcess] = []
        self._num_threads_before = torch.get_num_threads()
        try:
            self._leader = self._start()
        except BaseException:
            self._kill()
            self._reap()
            raise
        self._sentinel = threading.Thread(target=self._await_end, name="moss-ranks", daemon=True)
        if self._ranks:
            self._sentinel.start()

    @property
    def num_blocks(self) -> int:
        return self._leader.num_blocks

    @property
    def rank_pids(self) -> list[int]:
        """Processes of the ranks above 0."""
        return [rank.pid for rank in self._ranks]

    def execute(self, batch: Batch, rows: Sequence[SamplingRow]) -> list[SampledToken]:
        return self._leader.execute(batch, rows)

    def watch(self, on_death: Callable[[str], None]) -> None:
        self._leader.watch(on_death)

    def close(self) -> None:
        if self._leader.is_closed:
            return
        if not self._leader.is_alive:
            self._kill()  # they may hang, or wait for one that does
        self._leader.close()
        for rank in self._ranks:
            rank.wait()
        if self._sentinel.is_alive():
            self._sentinel.join()
        self._reap()

    def _start(self) -> Leader:
        """Starts and loads all ranks at the same time; rank 0's shard here."""
        config = self._config
        if config.tp_size == 1:
            runner = build_rank(RankSpec(config, 0, config.device, (HOST, 0)))
            return Leader(runner, choose_num_blocks(runner, config), config.step_timeout_s)
        threads = _threads_per_rank(config.tp_size)
        torch.set_num_threads(threads)
        store = TPGroup.listen(HOST)
        specs = [
            RankSpec(config, rank, _device(config, rank), (HOST, store.port))
            for rank in range(config.tp_size)
        ]
        for spec in specs[1:]:
            self._ranks.append(RankProcess(spec.rank, threads))
        for rank in self._ranks:
            rank.expect(UP)
        for rank in self._ranks:
            rank.connection.send(specs[rank.rank])
        runner = build_rank(specs[0])
        for rank in self._ranks:
            rank.expect(READY)
        num_blocks = choose_num_blocks(runner, config)
        for rank in self._ranks:
            rank.connection.send(num_blocks)
        return Leader(runner, num_blocks, config.step_timeout_s)

    def _await_end(self) -> None:
        """The sentinel's thread: a pipe speaks or ends only when its rank does."""
        by_connection = {rank.connection: rank for rank in self._ranks}
        first = wait(list(by_connection))[0]
        assert isinstance(first, Connection)
        rank = by_connection[first]
        if self._leader.is_closed:
            return
        self._leader.fail(f"rank {rank.rank} (process {rank.pid}) ended: {rank.last_words()}")
        self._kill()

    def _kill(self) -> None:
        for rank in self._ranks:
            rank.kill()

    def _reap(self) -> None:
        for rank in self._ranks:
            rank.wait()
            rank.connection.close()
        torch.set_num_threads(self._num_threads_before)


def _device(config: EngineConfig, rank: int) -> str:
    return f"cuda:{rank}" if config.device == "cuda" else config.device


def _threads_per_rank(tp_size: int) -> int:
    """This machine's cores dealt out: ranks that all take every core only get in each other's
    way. OMP_NUM_THREADS, which says how many a process may have, is respected.
    """
    num_threads = int(os.environ.get("OMP_NUM_THREADS", len(os.sched_getaffinity(0)) // tp_size))
    return max(1, num_threads)
