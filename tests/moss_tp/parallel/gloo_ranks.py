"""Ranks as threads of one process with gloo: TPGroup's collectives without other processes."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TypeVar

import torch
from torch.distributed import HashStore  # type: ignore[attr-defined]  # public, unstubbed

from moss_tp.parallel.backends import gloo_on
from moss_tp.parallel.tp_group import TPGroup

R = TypeVar("R")
TIMEOUT_S = 30.0


def on_gloo(size: int, fn: Callable[[TPGroup], R], timeout_s: float = TIMEOUT_S) -> list[R]:
    """Runs `fn(group)` on each of `size` ranks; returns the results in rank order."""
    store = HashStore()

    def run(rank: int) -> R:
        gloo = gloo_on("127.0.0.1", store, rank, size, timedelta(seconds=timeout_s))
        group = TPGroup(rank, size, torch.device("cpu"), gloo, gloo)
        del gloo
        try:
            return fn(group)
        finally:
            group.close()

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(run, range(size)))
