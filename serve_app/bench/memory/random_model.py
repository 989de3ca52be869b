"""A model of MOSS's own size without its weights: tensors that repeat one random tile, cut into
ranks and packed as `moss shard` does."""

import shutil
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from moss_tp.config import ModelConfig
from moss_tp.gpu_check.tools.shapes import MOSS, Shape
from moss_tp.quant_config import BIAS, G_IDX, QWEIGHT, QZEROS, SCALES, in_every_place
from moss_tp.sharding.run import shard_checkpoint
from moss_tp.sharding.settings import ShardSettings
from moss_tp.tokenizer_files import TOKENIZER_FILES
from moss_tp.weights.checkpoint import Checkpoint, StoredTensor
from moss_tp.weights.names import Header, published_tensors
from serve_app.demo.bundled import BUNDLED_MODEL

# Models of other sizes are for tests: the demo model's tokenizer has to fit.
SHAPES: dict[str, Shape] = {
    "moss-moon-003": MOSS,
    "tiny": replace(MOSS, layers=2, heads=8, head_dim=16, rotary_dim=8, vocab_size=4096),
}
TILE = 1 << 20  # values
_DTYPES = {torch.int32: "I32", torch.float16: "F16"}
DIGEST = "random"


@dataclass(frozen=True)
class RepeatedTile:
    """A tensor of `shape` in a checkpoint that has the values of a tile, over and over."""

    shape: tuple[int, ...]
    tile: Tensor  # (TILE,)

    def __getitem__(self, index: Any) -> Tensor:
        """The part that a slice along each of the first dimensions says; others are whole."""
        spans = index if isinstance(index, tuple) else (index,)
        lengths = [
            len(range(length)[span]) for length, span in zip(self.shape, spans, strict=False)
        ]
        shape = (*lengths, *self.shape[len(lengths) :])
        repeats = -(-prod(shape) // len(self.tile))
        return self.tile.repeat(repeats)[: prod(shape)].view(shape)


def write_random_model(
    shape: Shape, destination: Path, tp_size: int, lm_head_bits: int | None, *, is_shown: bool
) -> ModelConfig:
    """Writes a directory that `tp_size` ranks load; returns its config.

    Raises ConfigError where the disk is too small, before anything is written.
    """
    source = destination.with_name(f"{destination.name}.source")
    try:
        shape.write(source)
        for name in TOKENIZER_FILES:
            if (BUNDLED_MODEL / name).is_file():
                shutil.copyfile(BUNDLED_MODEL / name, source / name)
        settings = ShardSettings(source, destination, tp_size, lm_head_bits=lm_head_bits)
        config = ModelConfig.from_dir(source)
        with random_checkpoint(config) as checkpoint:
            config = checkpoint.check(config)
            shard_checkpoint(settings, config, checkpoint, DIGEST, is_shown=is_shown)
    finally:
        shutil.rmtree(source, ignore_errors=True)
    return config


def random_checkpoint(config: ModelConfig) -> Checkpoint:
    """Weights of size `inputs ** -0.5`, so that hidden states stay finite; quantized ones have all
    levels, and zeros in the middle."""
    numbers = torch.Generator().manual_seed(0)
    normal = torch.randn(TILE, generator=numbers)
    words = torch.randint(-(2**31), 2**31, (TILE,), generator=numbers).int()
    tensors = {}
    for name, wanted in published_tensors(config).items():
        values = _values(name, wanted.shape, config, normal, words)
        header = Header(wanted.shape, _DTYPES[values[:0].dtype], Path("random"))
        tensors[name] = StoredTensor(header, values)
    return Checkpoint(tensors)


def _values(
    name: str, shape: tuple[int, ...], config: ModelConfig, normal: Tensor, words: Tensor
) -> Tensor | RepeatedTile:
    layer, part = name.rsplit(".", 1)
    form = config.format_of(layer) if layer in config.linear_layers else None
    size = config.linear_layers[layer][1] if layer in config.linear_layers else shape[-1]
    if form is not None and part == G_IDX:
        group = form.group_size if form.group_size > 0 else size
        return (torch.arange(size) // group).int()
    if form is not None and part == QWEIGHT:
        return RepeatedTile(shape, words)
    if form is not None and part == QZEROS:
        zero = 2 ** (form.bits - 1) - form.zero_offset
        word = in_every_place(zero, form.bits)
        return RepeatedTile(shape, torch.full((TILE,), word, dtype=torch.int32))
    if form is not None and part == SCALES:
        deviation = ((4**form.bits - 1) / 12) ** 0.5  # of levels that are all as frequent
        return RepeatedTile(shape, torch.full((TILE,), size**-0.5 / deviation).half())
    if part == BIAS or len(shape) == 1:
        is_gain = len(shape) == 1 and part != BIAS
        return torch.full(shape, float(is_gain)).half()
    return RepeatedTile(shape, (normal * size**-0.5).half())
