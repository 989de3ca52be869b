"""How many threads a rank computes with. It knows no rank but the one it is called in."""

import os

import torch

from moss_tp.engine_config import EngineConfig


def use_fair_threads(config: EngineConfig) -> None:
    """Splits this machine's cores between the ranks; more threads than cores is slower.

    Ray would leave each actor with as many threads as its logical CPUs, which is one.
    """
    if config.device == "cpu":
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // config.tp_size))
