"""What a device computes in a step, in terms of its static tensors."""

from dataclasses import dataclass

import torch

from moss_tp.engine.graphs.sampler import StepSampler
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
    group: TPGroup

    @torch.inference_mode()
    def compute(self, views: StepViews) -> None:
        """The step in `views`, from pending ids to sampled ones. Fit for a graph: it does not look
        at values."""
        token_ids = take_ids(views.token_ids, self.sampler.token_ids)
        logits = self.model.logits(token_ids, views.plan, views.logit_rows, self.kv)
        if not len(views.logit_rows):
            return
        if logits is not None:
            self.sampler.sample(logits, views.sampling)
        if self.group.size > 1:  # for the pending ids of the next step
            self.group.broadcast(self.sampler.token_ids)
