"""One rank's side of a step: Batch in, on rank 0 sampled tokens out.

Owns the rank's KV cache. It knows slots and rows, no requests; every rank runs the same code and
only rank 0 samples.
"""

from collections.abc import Sequence

import torch

from moss_tp.config import ModelConfig
from moss_tp.engine.running.batch import Batch, Ints
from moss_tp.layers.kv_cache import KVCache
from moss_tp.model import BatchTensors, MossForCausalLM
from moss_tp.parallel.tp_group import TPGroup
from moss_tp.sampling.row import SampledToken, SamplingRow
from moss_tp.sampling.sampler import Sampler


class ModelRunner:
    def __init__(
        self,
        model: MossForCausalLM,
        config: ModelConfig,
        group: TPGroup,
        block_size: int,
        cache_dtype: torch.dtype,
    ) -> None:
        self.model = model
        self.config = config
        self.group = group
        self.block_size = block_size
        self.cache_dtype = cache_dtype
        self._sampler = Sampler()
        self._kv: KVCache | None = None

    def allocate(self, num_blocks: int) -> None:
        """Allocates the KV cache; every rank must be given the same number."""
        self._kv = KVCache.allocate(
            self.config, self.group, num_blocks, self.block_size, self.cache_dtype
        )

    @torch.inference_mode()
    def run(self, batch: Batch, rows: Sequence[SamplingRow]) -> list[SampledToken]:
        """The sampled tokens on rank 0, [] elsewhere. `rows`: see `Executor.execute`."""
        if self._kv is None:
            raise RuntimeError("the KV cache is not allocated")
        logits = self.model.forward(self._tensors(batch), self._kv)
        if logits is None or not rows:
            return []
        return self._sampler.sample(logits, rows)

    def _tensors(self, batch: Batch) -> BatchTensors:
        def tensor(values: Ints) -> torch.Tensor:
            return torch.from_numpy(values).to(self.group.device)

        return BatchTensors(
            token_ids=tensor(batch.token_ids),
            positions=tensor(batch.positions),
            slot_mapping=tensor(batch.slots(self.block_size)),
            query_lens=batch.query_lens,
            context_lens=batch.context_lens,
            block_tables=tensor(batch.padded_tables()),
            logit_rows=tensor(batch.logit_rows),
        )
