"""How many KV blocks fit into a rank's memory. Rank 0 chooses for all ranks."""

from moss_tp.device import TRAITS, DeviceTraits, free_memory
from moss_tp.engine.running.runner import Runner
from moss_tp.engine_config import EngineConfig
from moss_tp.errors import ConfigError
from moss_tp.layers.kv_cache import KVCache

# Of a GPU's default cache: beyond this a cached prefix is hardly ever asked for again, while
# what the engine keeps of each block takes the host's memory and time.
FULL_CACHES = 4


def choose_num_blocks(runner: Runner, config: EngineConfig) -> int:
    """Blocks for `config.kv_cache_bytes`, or for the default where that is None.

    The default is a share of the memory that is free after loading, on CUDA after the largest
    steps as well, see `DeviceTraits`. Rank 0 chooses for all: ranks hold equal shards on equal
    devices, and the others `prepare` meanwhile. ConfigError when not even one full-length sequence
    fits.
    """
    runner.prepare()
    cache_format = runner.cache_format
    per_block = KVCache.bytes_per_block(
        runner.config, config.tp_size, config.block_size, runner.cache_dtype, cache_format
    )
    per_sequence = -(-config.context_length // config.block_size)
    given = config.kv_cache_bytes
    budget = given or _free_bytes(runner, config)
    num_blocks = budget // per_block - cache_format.spare_blocks
    if num_blocks < per_sequence:
        needed = (per_sequence + cache_format.spare_blocks) * per_block
        raise ConfigError(
            f"a KV cache of {max(0, budget)} bytes a rank does not hold one sequence of "
            f"{config.context_length} tokens ({needed} bytes): {_advice(config)}"
        )
    return num_blocks if given else min(num_blocks, _max_sequences(runner, config) * per_sequence)


def _free_bytes(runner: Runner, config: EngineConfig) -> int:
    """A rank's share of the free memory; negative where too little is free."""
    traits, free = _traits(runner), free_memory(str(runner.group.device))
    share = min(int(free * traits.kv_share), free - traits.min_free)
    shares_device = traits.is_shared_memory or not runner.group.can_be_recorded
    return share // config.tp_size if shares_device else share


def _max_sequences(runner: Runner, config: EngineConfig) -> int:
    """Of the full length, in a default cache."""
    limit = _traits(runner).max_kv_sequences
    return FULL_CACHES * config.max_num_seqs if limit is None else limit


def _traits(runner: Runner) -> DeviceTraits:
    """The CPU's, where it computes the GPU's steps."""
    return TRAITS[str(runner.group.device).partition(":")[0]]


def _advice(config: EngineConfig) -> str:
    if config.kv_cache_bytes is not None or config.device != "cuda":
        return "raise kv_cache_bytes or lower max_model_len"
    return (
        "what is free after loading and the largest step is not enough; lower max_model_len, "
        "max_num_seqs or max_num_batched_tokens, set kv_cache_dtype to int8, keep more weights in "
        "host memory (cpu_offload_gb), or spread the model over more GPUs (tp_size)"
    )
