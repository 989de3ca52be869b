"""A model whose predictions of given text are asked for: teacher forcing.

By the CPU's kernels, weights and KV cache as they serve: a token's logits have the same bits in a
prompt and in a reply.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from moss_tp.config import ModelConfig
from moss_tp.kernels.plan import AttentionPlan
from moss_tp.layers.kv_cache import KVCache
from moss_tp.model import load_model
from moss_tp.parallel.tp_group import TPGroup

_BLOCK = 16  # slots
_ROWS = 64  # whose logits are in memory at once


@dataclass(frozen=True)
class Variant:
    """A model's directory, and how it is computed; see `EngineConfig`."""

    directory: Path
    dtype: str = "bfloat16"
    kv_cache_dtype: str | None = None
    lm_head_bits: int | None = None

    @property
    def cache_dtype(self) -> str:
        return self.kv_cache_dtype or self.dtype


class ScoredModel:
    """On one rank of this machine. Raises ConfigError or CheckpointError for one that cannot be
    loaded."""

    def __init__(self, variant: Variant) -> None:
        self.config = ModelConfig.from_dir(variant.directory)
        group = TPGroup.single("cpu")
        dtype: torch.dtype = getattr(torch, variant.dtype)
        self._model = load_model(
            variant.directory, self.config, group, dtype, lm_head_bits=variant.lm_head_bits
        )
        num_blocks = -(-self.config.max_position_embeddings // _BLOCK)
        cache_dtype: torch.dtype = getattr(torch, variant.cache_dtype)
        self._kv = KVCache.allocate(self.config, group, num_blocks, _BLOCK, cache_dtype)

    @torch.inference_mode()
    def log_probs(self, ids: Sequence[int]) -> Iterator[Tensor]:
        """fp32 `(R, vocabulary)` of what follows each of a sequence's tokens, some rows at a time.

        Raises ValueError for a sequence that is longer than the model's positions.
        """
        if len(ids) > self.config.max_position_embeddings:
            raise ValueError(f"{len(ids)} tokens are more than the model has positions")
        x = self._model.hidden(torch.tensor(ids), _plan(len(ids)), self._kv)
        for start in range(0, len(ids), _ROWS):
            rows = torch.arange(start, min(start + _ROWS, len(ids)))
            logits = self._model.head(x, rows)
            assert logits is not None  # there is one rank
            yield logits.float().log_softmax(-1)


def _plan(length: int) -> AttentionPlan:
    """Of one sequence, in the first blocks of the cache."""
    places = np.arange(length)
    return AttentionPlan(
        positions=places,
        slot_mapping=places,
        query_lens=np.array([length]),
        context_lens=np.array([length]),
        block_tables=np.arange(-(-length // _BLOCK))[None],
        block_size=_BLOCK,
    )
