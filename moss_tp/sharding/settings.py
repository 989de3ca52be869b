"""What `moss shard` is to make, checked before anything is read."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from moss_tp.config import ModelConfig
from moss_tp.device import DTYPES
from moss_tp.engine_config import LM_HEAD_BITS
from moss_tp.errors import ConfigError
from moss_tp.weights.ranks.manifest import is_sharded

_ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_OTHERS = 64 << 20  # scales and biases beyond their stored size, padding, tokenizer
_GIB = 1 << 30


@dataclass(frozen=True)
class ShardSettings:
    """`source` is a model directory, `destination` one to be made. Raises ConfigError."""

    source: Path
    destination: Path
    tp_size: int
    dtype: str = "bfloat16"
    lm_head_bits: int | None = None

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ConfigError(f"dtype cannot be {self.dtype!r}")
        if self.lm_head_bits not in (None, *LM_HEAD_BITS):
            raise ConfigError(f"lm_head_bits cannot be {self.lm_head_bits!r}")
        if is_sharded(self.source):
            raise ConfigError(f"{self.source} is sharded already: use the model it was made of")
        if self.destination.resolve().is_relative_to(self.source.resolve()):
            raise ConfigError(f"{self.destination} is in the model's own directory")

    def num_bytes(self, config: ModelConfig) -> int:
        """About what is written."""
        item, rounded = _ITEM_BYTES[self.dtype], config.with_rounded_head(self.lm_head_bits)
        matrices = sum(rounded.matrix_bytes(layer, item) for layer in rounded.linear_layers)
        return matrices + config.vocab_size * config.hidden_size * item + _OTHERS

    def check_space(self, config: ModelConfig, directory: Path, done: int) -> None:
        """Raises ConfigError where less is free than is needed beside `done` bytes."""
        needed, free = self.num_bytes(config) - done, shutil.disk_usage(directory).free
        if free < needed:
            raise ConfigError(
                f"{directory} needs {needed / _GIB:.1f} GiB more, and {free / _GIB:.1f} GiB are "
                "free there"
            )
