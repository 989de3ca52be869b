"""MOSS (CodeGen's architecture) over a TPGroup, in the published names.

    x = wte(ids)                                  all-reduce
    x = x + attn(ln_1(x)) + mlp(ln_1(x))          one all-reduce a block: partial sums are added
                                                  on the rank first
    logits = lm_head(ln_f(x[logit_rows]))         one gather

It knows no sequence and no sampling.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moss_tp.config import ModelConfig
from moss_tp.kernels.plan import AttentionPlan
from moss_tp.layers.attention import Attention, BatchTensors, KVCache
from moss_tp.layers.embedding import ParallelLMHead, VocabParallelEmbedding
from moss_tp.layers.linear import ColumnParallelLinear, RowParallelLinear
from moss_tp.layers.rotary import Rotary
from moss_tp.parallel.tp_group import TPGroup
from moss_tp.weights import load_weights


class MossMLP(nn.Module):
    """`x (T, hidden) -> (T, hidden)`: a partial sum."""

    def __init__(self, config: ModelConfig, group: TPGroup, dtype: torch.dtype) -> None:
        super().__init__()
        hidden, inner = config.hidden_size, config.intermediate_size
        self.fc_in = ColumnParallelLinear(hidden, inner, group, dtype)
        self.fc_out = RowParallelLinear(inner, hidden, group, dtype, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        partial: Tensor = self.fc_out(F.gelu(self.fc_in(x), approximate="tanh"))
        return partial


class MossBlock(nn.Module):
    """Attention and MLP side by side on one normed input."""

    def __init__(self, config: ModelConfig, group: TPGroup, dtype: torch.dtype) -> None:
        super().__init__()
        self._group = group
        self.ln_1 = _layer_norm(config, group, dtype)
        self.attn = Attention(config, group, dtype)
        self.mlp = MossMLP(config, group, dtype)

    def forward(
        self,
        x: Tensor,
        rotary: Rotary,
        angles: tuple[Tensor, Tensor],
        cache: tuple[Tensor, Tensor],
        plan: AttentionPlan,
    ) -> Tensor:
        normed = self.ln_1(x)
        partial = self.attn(normed, rotary, angles, cache, plan) + self.mlp(normed)
        return x + self._group.all_reduce(partial)


class MossModel(nn.Module):
    """`batch -> hidden states (R, hidden)` of the rows whose logits are wanted."""

    def __init__(self, config: ModelConfig, group: TPGroup, dtype: torch.dtype) -> None:
        super().__init__()
        self.wte = VocabParallelEmbedding(config.vocab_size, config.hidden_size, group, dtype)
        self.h = nn.ModuleList(MossBlock(config, group, dtype) for _ in range(config.num_layers))
        self.ln_f = _layer_norm(config, group, dtype)
        self._rotary = Rotary(config.rotary_dim, config.max_position_embeddings, group.device)

    def forward(self, batch: BatchTensors, kv: KVCache) -> Tensor:
        plan = AttentionPlan.make(
            batch.slot_mapping,
            batch.query_lens,
            batch.context_lens,
            batch.block_tables,
            kv.block_size,
        )
        angles = self._rotary.at(batch.positions)
        x: Tensor = self.wte(batch.token_ids)
        for block, cache in zip(self.h, kv.layers, strict=True):
            x = block(x, self._rotary, angles, cache, plan)
        normed: Tensor = self.ln_f(x[batch.logit_rows])
        return normed


class MossForCausalLM(nn.Module):
    """One rank's shard; its weights are uninitialised until loaded. Raises ConfigError when the
    model cannot be split over the group."""

    def __init__(self, config: ModelConfig, group: TPGroup, dtype: torch.dtype) -> None:
        super().__init__()
        config.check_tp(group.size)
        self.transformer = MossModel(config, group, dtype)
        self.lm_head = ParallelLMHead(config.vocab_size, config.hidden_size, group, dtype)

    @torch.inference_mode()
    def forward(self, batch: BatchTensors, kv: KVCache) -> Tensor | None:
        """fp32 logits `(R, vocab_size)` on rank 0, None elsewhere; fills the cache's slots."""
        hidden = self.transformer(batch, kv)
        logits: Tensor | None = self.lm_head(hidden)
        return logits


def load_model(
    path: str | Path, config: ModelConfig, group: TPGroup, dtype: torch.dtype
) -> MossForCausalLM:
    """This rank's shard of the checkpoint in `path`.

    Raises ConfigError when it cannot be split so, CheckpointError when it is not whole.
    """
    model = MossForCausalLM(config, group, dtype)
    load_weights(model, path)
    return model.eval()


def _layer_norm(config: ModelConfig, group: TPGroup, dtype: torch.dtype) -> nn.LayerNorm:
    norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps, device=group.device, dtype=dtype)
    return norm.requires_grad_(False)
