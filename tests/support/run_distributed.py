"""Runs a function on every rank of a real process group on loopback.

`run_distributed(fn, 2, *args)` calls `fn(group, *args)` on two ranks and returns their results in
rank order. Rank 0 is this process, the others are spawned; `fn` must be a module-level function.
"""

from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, TypeVar

import torch

from moss_tp.parallel.tp_group import TPGroup

R = TypeVar("R")

HOST = "127.0.0.1"
TIMEOUT_S = 60


def run_distributed(
    fn: Callable[..., R], world_size: int, *args: object, **kwargs: object
) -> list[R]:
    """The results of all ranks. Raises the exception of a failed rank, or a group of several."""
    store = TPGroup.listen(HOST)
    threads_before = torch.get_num_threads()
    ranks: list[Future[R]] = [Future()]
    with ProcessPoolExecutor(max(1, world_size - 1), mp_context=get_context("spawn")) as pool:
        for rank in range(1, world_size):
            ranks.append(pool.submit(_run_rank, rank, world_size, store.port, fn, args, kwargs))
        try:
            ranks[0].set_result(_run_rank(0, world_size, store.port, fn, args, kwargs))
        except Exception as error:
            ranks[0].set_exception(error)
        finally:
            torch.set_num_threads(threads_before)
    errors = [error for error in (rank.exception() for rank in ranks) if error is not None]
    if len(errors) > 1:
        raise BaseExceptionGroup("several ranks failed", errors)
    return [rank.result() for rank in ranks]


def _run_rank(
    rank: int,
    world_size: int,
    port: int,
    fn: Callable[..., R],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> R:
    torch.set_num_threads(1)
    group = TPGroup.join(rank, world_size, (HOST, port), "cpu", TIMEOUT_S)
    try:
        return fn(group, *args, **kwargs)
    finally:
        group.close()
