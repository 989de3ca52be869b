"""MOSS (CodeGen's architecture) over a TPGroup, in the published names.

    x = wte(ids)                                  all-reduce
    x = x + attn(ln_1(x)) + mlp(ln_1(x))          one all-reduce a block: partial sums are added
                                                  on the rank first
    logits = lm_head(ln_f(x[logit_rows]))         one gather

Parameters are filled under their published names, then packed: kernels take them over and do all
the arithmetic. It knows no sequence and no sampling.
"""

from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from moss_tp.config import ModelConfig
from moss_tp.kernels import choose_kernels
from moss_tp.kernels.base import BlockKernel, BlockWeights, ChainKernel, DenseWeight, Kernels
from moss_tp.kernels.plan import AttentionPlan
from moss_tp.kernels.rotary import Rotary
from moss_tp.layers.attention import Attention, BatchTensors, KVCache
from moss_tp.layers.embedding import ParallelLMHead, VocabParallelEmbedding
from moss_tp.layers.linear import ColumnParallelLinear, RowParallelLinear, release
from moss_tp.parallel.tp_group import TPGroup
from moss_tp.weights.load import load_weights


class MossMLP(nn.Module):
    """The MLP's parameters."""

    def __init__(self, config: ModelConfig, group: TPGroup, dtype: torch.dtype) -> None:
        super().__init__()
        hidden, inner = config.hidden_size, config.intermediate_size
        self.fc_in = ColumnParallelLinear(hidden, inner, group, dtype)
        self.fc_out = RowParallelLinear(inner, hidden, group, dtype, bias=True)


class MossBlock(nn.Module):
    """Attention and MLP side by side on one normed input. To be packed before its first use."""

    def __init__(self, config: ModelConfig, group: TPGroup, dtype: torch.dtype) -> None:
        super().__init__()
        self._group = group
        self._head_dim = config.head_dim
        self.kernel: BlockKernel | None = None
        self.ln_1 = _layer_norm(config, group, dtype)
        self.attn = Attention(config, group, dtype)
        self.mlp = MossMLP(config, group, dtype)

    def pack(self, kernels: Kernels) -> None:
        """Hands the loaded weights over to the block's kernel."""
        attn, mlp = self.attn, self.mlp
        self.kernel = kernels.block(
            BlockWeights(
                norm=(self.ln_1.weight, self.ln_1.bias),
                eps=self.ln_1.eps,
                qkv=DenseWeight(attn.qkv_proj.weight),
                fc_in=DenseWeight(mlp.fc_in.weight, mlp.fc_in.bias),
                out=DenseWeight(attn.out_proj.weight),
                fc_out=DenseWeight(mlp.fc_out.weight, mlp.fc_out.own_bias),
                head_dim=self._head_dim,
                adds_residual=self._group.rank == 0,
            )
        )
        release(self)

    def forward(
        self, x: Tensor, rotary: Rotary, cache: tuple[Tensor, Tensor], plan: AttentionPlan
    ) -> Tensor:
        if self.kernel is None:
            raise RuntimeError("the block is not packed")
        return self._group.all_reduce(self.kernel(x, rotary, cache, plan))


class MossModel(nn.Module):
    """`batch -> hidden states (R, hidden)` of the rows whose logits are wanted."""

    def __init__(self, config: ModelConfig, group: TPGroup, dtype: torch.dtype) -> None:
        super().__init__()
        self.wte = VocabParallelEmbedding(config.vocab_size, config.hidden_size, group, dtype)
        self.h = nn.ModuleList(MossBlock(config, group, dtype) for _ in range(config.num_layers))
        self.ln_f = _layer_norm(config, group, dtype)
        self._rotary = Rotary.make(config.rotary_dim, config.max_position_embeddings, group.device)
        self._activations = dtype
        self._is_single = group.size == 1
        self._chain: ChainKernel | None = None

    def pack(self, kernels: Kernels) -> None:
        for block in self.h:
            cast(MossBlock, block).pack(kernels)
        self._activations = kernels.activations
        self.ln_f.to(kernels.activations)
        if self._is_single and kernels.chain is not None:
            self._chain = kernels.chain([block.kernel for block in self.h])

    def forward(self, batch: BatchTensors, kv: KVCache) -> Tensor:
        plan = AttentionPlan.make(
            batch.positions,
            batch.slot_mapping,
            batch.query_lens,
            batch.context_lens,
            batch.block_tables,
            kv.block_size,
        )
        x: Tensor = self.wte(batch.token_ids).to(self._activations)
        if self._chain is not None:
            x = self._chain(x, self._rotary, kv.layers, plan)
        else:
            for block, cache in zip(self.h, kv.layers, strict=True):
                x = block(x, self._rotary, cache, plan)
        normed: Tensor = self.ln_f(x[batch.logit_rows])
        return normed


class MossForCausalLM(nn.Module):
    """One rank's shard; its weights are uninitialised until loaded. Raises ConfigError when the
    model cannot be split over the group, or there are no kernels for its device."""

    def __init__(self, config: ModelConfig, group: TPGroup, dtype: torch.dtype) -> None:
        super().__init__()
        config.check_tp(group.size)
        self._kernels = choose_kernels(group.device, dtype, config.head_dim)
        self.transformer = MossModel(config, group, dtype)
        self.lm_head = ParallelLMHead(config.vocab_size, config.hidden_size, group, dtype)

    @torch.inference_mode()
    def pack(self) -> None:
        """To be called once, when the weights are loaded."""
        self.transformer.pack(self._kernels)
        self.lm_head.pack(self._kernels.linear)

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
    model.pack()
    return model.eval()


def _layer_norm(config: ModelConfig, group: TPGroup, dtype: torch.dtype) -> nn.LayerNorm:
    norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps, device=group.device, dtype=dtype)
    return norm.requires_grad_(False)
