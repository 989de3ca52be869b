"""How many KV blocks fit into a rank's memory. Rank 0 chooses for all ranks."""

from moss_tp.device import TRAITS, free_memory
from moss_tp.engine.running.runner import Runner
from moss_tp.engine_config import EngineConfig
from moss_tp.errors import ConfigError
from moss_tp.layers.kv_cache import KVCache


def choose_num_blocks(runner: Runner, config: EngineConfig) -> int:
    """Blocks for `config.kv_cache_bytes`, or for the default where that is None.

    The default is a share of the memory that is free after loading, on CUDA after the largest
    steps as well, see `DeviceTraits`. Rank 0 chooses for all: ranks hold equal shards on equal
    devices, and the others `prepare` meanwhile. ConfigError when not even one full-length sequence
    fits.
    """
    runner.prepare()
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


def _default_bytes(runner: Runner, config: EngineConfig, sequence_bytes: int) -> int:
    device = str(runner.group.device)
    traits = TRAITS[device.partition(":")[0]]  # the CPU's, where it computes the GPU's steps
    share = int(free_memory(device) * traits.kv_share)
    if traits.is_shared_memory:
        share //= config.tp_size
    if traits.max_kv_sequences is None:
        return share
    return min(traits.max_kv_sequences * sequence_bytes, share)
