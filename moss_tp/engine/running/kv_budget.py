"""How many KV blocks a rank's memory is good for. Rank 0 works it out for all."""

import os
from pathlib import Path

import torch

from moss_tp.engine.running.model_runner import ModelRunner
from moss_tp.engine_config import EngineConfig
from moss_tp.errors import ConfigError
from moss_tp.layers.kv_cache import KVCache

# Left to activations and to whatever else lives on the GPU.
CUDA_SHARE = 0.85
CPU_SHARE = 0.25
CPU_FULL_SEQUENCES = 8


def choose_num_blocks(runner: ModelRunner, config: EngineConfig) -> int:
    """Blocks for `config.kv_cache_bytes`, or for the default where that is None.

    The default on CUDA is most of what is free after loading (rank 0's word for all ranks: they
    hold equal shards on equal devices); on CPU as much as a few full-length sequences need, but
    never more than a quarter of the free memory, which the ranks of one machine share.
    ConfigError when not even one full-length sequence fits.
    """
    per_block = KVCache.bytes_per_block(
        runner.config, config.tp_size, config.block_size, runner.cache_dtype
    )
    per_sequence = -(-config.context_length // config.block_size)
    budget = config.kv_cache_bytes or _default_bytes(runner, config, per_sequence * per_block)
    num_blocks = budget // per_block
    if num_blocks < per_sequence:
        raise ConfigError(
            f"a KV cache of {budget} bytes a rank does not hold one sequence of "
            f"{config.context_length} tokens ({per_sequence * per_block} bytes): raise "
            "kv_cache_bytes or lower max_model_len"
        )
    return num_blocks


def _default_bytes(runner: ModelRunner, config: EngineConfig, sequence_bytes: int) -> int:
    device = torch.device(runner.group.device)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free * CUDA_SHARE)
    share = int(_free_memory() * CPU_SHARE) // config.tp_size
    return min(CPU_FULL_SEQUENCES * sequence_bytes, share)


def _free_memory() -> int:
    """Bytes the kernel could give out without swapping, its page cache included."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
