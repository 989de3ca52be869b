"""What a device computes in a step, in terms of its static tensors."""

from dataclasses import dataclass

import torch
from torch import Tensor

from moss_tp.engine.graphs.sampler import StepSampler
from moss_tp.engine.graphs.scores import StepScores
from moss_tp.engine.graphs.step_views import StepViews
from moss_tp.kernels.cuda.sampling.ids import take_ids
from moss_tp.layers.kv_cache import KVCache
from moss_tp.model import MossForCausalLM
from moss_tp.parallel.tp_group import TPGroup


@dataclass(frozen=True)
class DeviceStep:
    """The same collectives on every rank; rank 0 alone samples."""

    model: MossForCausalLM
    kv: KVCache
    sampler: StepSampler
    scores: StepScores
    group: TPGroup

    @torch.inference_mode()
    def compute(self, views: StepViews, num_scored: int = 0) -> None:
        """The step in `views`, from pending ids to sampled ones, and the first `num_scored` of the
        prompts' rows. Fit for a graph: it does not look at values."""
        token_ids = take_ids(views.token_ids, self.sampler.token_ids)
        x = self.model.hidden(token_ids, views.plan, self.kv)
        if len(views.logit_rows):
            self._sample(x, views)
        if num_scored:
            self.scores.compute(x, num_scored)

    def _sample(self, x: Tensor, views: StepViews) -> None:
        logits = self.model.head(x, views.logit_rows)
        if logits is not None:
            self.sampler.sample(logits, views.sampling)
        if self.group.size > 1:  # for the pending ids of the next step
            self.group.broadcast(self.sampler.token_ids)
