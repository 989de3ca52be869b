"""One rank's side of a step: a Batch in; sampled tokens out, on rank 0 only.

Every rank runs the same code on its own KV cache. It knows slots and rows, no requests.
"""

import time
from collections.abc import Sequence
from functools import partial

import torch

from moss_tp.config import ModelConfig
from moss_tp.engine.running.runner import EndedStep
from moss_tp.engine.scheduling.batch import Batch, Ints
from moss_tp.kernels.plan import AttentionPlan
from moss_tp.layers.kv_cache import ROWS, KVCache
from moss_tp.model import MossForCausalLM
from moss_tp.parallel.tp_group import TPGroup
from moss_tp.sampling.row import SampledToken, SamplingRow
from moss_tp.sampling.sampler import Sampler
from moss_tp.sampling.scores import MAX_HEAD_ROWS, decode, packed_width, score


class ModelRunner:
    max_in_flight = 1
    cache_format = ROWS

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
        self.forward_s = 0.0  # time spent in the model, over all steps
        self._sampler = Sampler()
        self._kv: KVCache | None = None

    def prepare(self) -> None:
        """Steps take their memory as they need it."""

    def allocate(self, num_blocks: int) -> None:
        """Allocates the KV cache. Every rank must allocate the same number of blocks."""
        self._kv = KVCache.allocate(
            self.config, self.group, num_blocks, self.block_size, self.cache_dtype
        )

    def give_up(self, reason: str) -> None:
        """It waits for no device."""

    def launch(self, batch: Batch, rows: Sequence[SamplingRow]) -> EndedStep:
        """See `Runner.launch`."""
        return EndedStep(self.run(batch, rows))

    @torch.inference_mode()
    def run(self, batch: Batch, rows: Sequence[SamplingRow]) -> list[SampledToken]:
        """The sampled tokens on rank 0, [] elsewhere. `rows`: see `Executor.submit`."""
        if self._kv is None:
            raise RuntimeError("the KV cache is not allocated")
        token_ids, logit_rows = self._to_device(batch.token_ids), self._to_device(batch.logit_rows)
        plan = self._plan(batch)
        start = time.perf_counter()
        x = self.model.hidden(token_ids, plan, self._kv)
        logits = self.model.head(x, logit_rows)
        self.forward_s += time.perf_counter() - start
        tokens: list[SampledToken] = []
        if logits is not None and rows:
            tokens = self._sampler.sample(self.model.in_fp32(logits), rows)
        return tokens + self._score(x, batch) if len(batch.scored_rows) else tokens

    def _score(self, x: torch.Tensor, batch: Batch) -> list[SampledToken]:
        """The prompts' own tokens on rank 0, [] elsewhere."""
        rows, targets = self._to_device(batch.scored_rows), self._to_device(batch.targets)
        out = rows.new_empty(len(rows), packed_width(self.config.vocab_size), dtype=torch.int32)
        score(partial(self.model.head, x), rows, targets, out, MAX_HEAD_ROWS)
        return decode(out, batch.targets) if self.group.rank == 0 else []

    def _plan(self, batch: Batch) -> AttentionPlan:
        return AttentionPlan(
            positions=batch.positions,
            slot_mapping=batch.slots(self.block_size),
            query_lens=batch.query_lens,
            context_lens=batch.context_lens,
            block_tables=batch.padded_tables(),
            block_size=self.block_size,
        )

    def _to_device(self, values: Ints) -> torch.Tensor:
        return torch.from_numpy(values).to(self.group.device)
