"""How an engine is set up. Plain values only: it is pickled to every rank and imports no torch."""

from dataclasses import dataclass, replace
from math import isfinite
from typing import Protocol

from moss_tp.device import DEVICES, DTYPES, TRAITS, DeviceTraits
from moss_tp.errors import ConfigError

KV_CACHE_DTYPES = ("int8",)
LOAD_FORMATS = ("auto", "dummy")
LM_HEAD_BITS = (8,)
_GIB = 1 << 30


class ModelLimits(Protocol):
    """The part of `moss_tp.config.ModelConfig` that limits an engine."""

    @property
    def max_position_embeddings(self) -> int: ...


@dataclass(frozen=True)
class EngineConfig:
    """One engine: `model` is a local directory, `tp_size` the number of ranks.

    `max_model_len` counts prompt and reply; None means all positions of the model.
    `kv_cache_bytes` is the KV cache of **each** rank; None means what `kv_budget` chooses.
    `kv_cache_dtype` None keeps keys and values in `dtype`; int8 has a scale per token and head.
    `max_num_batched_tokens` limits a step; in a step that also decodes, prompts get at most
    `max_mixed_prefill_tokens` of it. A request without a deadline is refused if it would wait
    longer than `max_queue_s`; `max_waiting` only guards the memory. `num_speculative_tokens` is
    how many drafted tokens of a sequence a step verifies at most; 0 turns speculation off.
    `num_threads` is for each rank; None means what `moss_tp.device.threads_per_rank` chooses.
    `step_timeout_s` limits a step until the engine has learnt how long steps take, and every
    collective; None means the device's default. `cpu_offload_gb` is how many GiB of its blocks'
    weights **each** rank at least keeps in pinned host memory, in whole blocks, and streams to its
    GPU in every step, through buffers of two blocks there. `load_format` "dummy" makes random
    weights: of the directory only `config.json` is needed, and a tokenizer by a server.
    `lm_head_bits` 8 rounds the LM head to int8, with a scale for each token, when it is loaded;
    None keeps it as it is.

    Raises ConfigError, naming the field, for a value that cannot work.
    """

    model: str
    tp_size: int = 1
    device: str = "cpu"
    dtype: str = "bfloat16"
    max_model_len: int | None = None
    kv_cache_bytes: int | None = None
    kv_cache_dtype: str | None = None
    block_size: int = 16
    max_num_seqs: int = 64
    max_num_batched_tokens: int = 1024
    max_mixed_prefill_tokens: int | None = None
    max_waiting: int = 3072
    max_queue_s: float = 600
    num_speculative_tokens: int = 7
    num_threads: int | None = None
    step_timeout_s: float | None = None
    cpu_offload_gb: float = 0
    load_format: str = "auto"
    lm_head_bits: int | None = None

    def __post_init__(self) -> None:
        checks = {
            "tp_size": self.tp_size >= 1,
            "device": self.device in DEVICES,
            "dtype": self.dtype in DTYPES,
            "max_model_len": self.max_model_len is None or self.max_model_len >= 2,
            "kv_cache_bytes": self.kv_cache_bytes is None or self.kv_cache_bytes > 0,
            "kv_cache_dtype": self.kv_cache_dtype in (None, *KV_CACHE_DTYPES),
            "block_size": self.block_size >= 1,
            "max_num_seqs": self.max_num_seqs >= 1,
            # All decoding sequences must fit into one step, else the last in order would starve.
            "max_num_batched_tokens": self.max_num_batched_tokens >= self.max_num_seqs,
            "max_mixed_prefill_tokens": _is_none_or_positive(self.max_mixed_prefill_tokens),
            "max_waiting": self.max_waiting >= 1,
            "max_queue_s": self.max_queue_s > 0,
            "num_speculative_tokens": self.num_speculative_tokens >= 0,
            "num_threads": _is_none_or_positive(self.num_threads),
            "step_timeout_s": self.step_timeout_s is None or self.step_timeout_s > 0,
            "cpu_offload_gb": isfinite(self.cpu_offload_gb) and self.cpu_offload_gb >= 0,
            "load_format": self.load_format in LOAD_FORMATS,
            "lm_head_bits": self.lm_head_bits in (None, *LM_HEAD_BITS),
        }
        for field, is_valid in checks.items():
            if not is_valid:
                raise ConfigError(f"{field} cannot be {getattr(self, field)!r}")
        if self.cpu_offload_gb and self.device != "cuda":
            raise ConfigError(
                f"cpu_offload_gb is for device cuda: on {self.device} weights stay put"
            )

    def resolve(self, model: ModelLimits) -> "EngineConfig":
        """This config with `max_model_len` filled in; ConfigError when the model is shorter, or
        the device's kernels cannot read blocks of `block_size`."""
        if self.device == "cuda" and (self.block_size < 8 or self.block_size.bit_count() > 1):
            raise ConfigError(
                f"block_size cannot be {self.block_size} on cuda: its kernels need a power of two "
                "from 8"
            )
        limit = model.max_position_embeddings
        if self.max_model_len is None:
            return replace(self, max_model_len=limit)
        if self.max_model_len > limit:
            raise ConfigError(
                f"max_model_len {self.max_model_len} is beyond the model's {limit} positions"
            )
        return self

    @property
    def traits(self) -> DeviceTraits:
        """The facts of `device`."""
        return TRAITS[self.device]

    @property
    def offload_bytes(self) -> int:
        """`cpu_offload_gb` in bytes."""
        return round(self.cpu_offload_gb * _GIB)

    @property
    def cache_dtype(self) -> str:
        """The dtype of the KV cache."""
        return self.kv_cache_dtype or self.dtype

    @property
    def mixed_prefill_limit(self) -> int:
        """`max_mixed_prefill_tokens`, or the device's default where that is None."""
        if self.max_mixed_prefill_tokens is None:
            return self.traits.mixed_prefill_tokens
        return self.max_mixed_prefill_tokens

    @property
    def step_limit_s(self) -> float:
        """`step_timeout_s`, or the device's default where that is None."""
        return self.traits.step_timeout_s if self.step_timeout_s is None else self.step_timeout_s

    @property
    def context_length(self) -> int:
        """`max_model_len` of a resolved config."""
        if self.max_model_len is None:
            raise ConfigError("max_model_len is not known yet: resolve the config first")
        return self.max_model_len


def _is_none_or_positive(value: int | None) -> bool:
    return value is None or value >= 1
