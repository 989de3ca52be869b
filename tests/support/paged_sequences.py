"""Runs a model step by step on a paged KV cache, without an engine.

Every rank makes the same calls; greedy tokens are chosen on rank 0 and broadcast to the others.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moss_tp.config import ModelConfig
from moss_tp.kernels.plan import AttentionPlan
from moss_tp.layers.kv_cache import KVCache
from moss_tp.model import MossForCausalLM
from moss_tp.parallel.tp_group import TPGroup


def padded(tables: Sequence[list[int]]) -> NDArray[np.int64]:
    """Block tables as one matrix, padded with block 0."""
    width = max(map(len, tables))
    return np.array([table + [0] * (width - len(table)) for table in tables])


class PagedSequences:
    """Named sequences and their block tables; blocks are allocated in random order."""

    def __init__(
        self,
        model: MossForCausalLM,
        config: ModelConfig,
        group: TPGroup,
        block_size: int = 8,
        num_blocks: int = 96,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._model = model
        self._group = group
        self._size = block_size
        self._kv = KVCache.allocate(config, group, num_blocks, block_size, dtype)
        order = torch.randperm(num_blocks, generator=torch.Generator().manual_seed(1))
        self._free: list[int] = order.tolist()
        self._tables: dict[str, list[int]] = {}
        self._lengths: dict[str, int] = {}

    def step(self, chunks: Mapping[str, Sequence[int]], every_row: bool = False) -> Tensor | None:
        """Appends new tokens to each sequence, in one batch.

        Returns the logits of the last token of each sequence or, with `every_row`, of all tokens.
        """
        positions: list[int] = []
        slots: list[int] = []
        for name, chunk in chunks.items():
            table = self._tables.setdefault(name, [])
            start = self._lengths.get(name, 0)
            self._lengths[name] = stop = start + len(chunk)
            while len(table) * self._size < stop:
                table.append(self._free.pop())
            positions.extend(range(start, stop))
            slots.extend(
                table[p // self._size] * self._size + p % self._size for p in range(start, stop)
            )
        query_lens = np.array([len(chunk) for chunk in chunks.values()])
        plan = AttentionPlan(
            positions=np.array(positions),
            slot_mapping=np.array(slots),
            query_lens=query_lens,
            context_lens=np.array([self._lengths[name] for name in chunks]),
            block_tables=padded([self._tables[name] for name in chunks]),
            block_size=self._size,
        )
        token_ids = torch.tensor([token for chunk in chunks.values() for token in chunk])
        last_rows = torch.from_numpy(query_lens.cumsum() - 1)
        rows = torch.arange(len(positions)) if every_row else last_rows
        logits: Tensor | None = self._model(token_ids, plan, rows, self._kv)
        return logits

    def drop(self, name: str) -> None:
        """Frees the blocks of the sequence; its KV is lost."""
        self._free[:0] = self._tables.pop(name)
        del self._lengths[name]

    def greedy(self, chunks: Mapping[str, Sequence[int]]) -> dict[str, int]:
        """Runs one step; returns the most likely next token of each sequence."""
        logits = self.step(chunks)
        chosen = None if logits is None else logits.argmax(-1).numpy()
        return dict(zip(chunks, self._group.broadcast_ints(chosen).tolist(), strict=True))
