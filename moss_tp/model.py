"""MOSS (CodeGen's architecture) over a TPGroup, under the published parameter names.

    x = wte(token_ids)                            one all-reduce
    x = x + attn(ln_1(x)) + mlp(ln_1(x))          one all-reduce a block
    logits = lm_head(ln_f(x[logit_rows]))         one gather

Parameters are loaded first, then packed: kernels take them over and do the arithmetic. A block's
mathematics is in `kernels/base.py` (the formula), `kernels/reference/block.py` (plain torch),
`kernels/cpu/block.py` (one Numba program) and `kernels/cuda/block.py` (Triton). The model is
independent of sequences and sampling.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from moss_tp.config import ModelConfig
from moss_tp.errors import CheckpointError, ConfigError
from moss_tp.kernels import choose_kernels
from moss_tp.kernels.base import ChainKernel, Kernels, NormKernel, StepPlan, Storage
from moss_tp.kernels.rotary import Rotary
from moss_tp.layers.block import MossBlock, layer_norm
from moss_tp.layers.embedding import ParallelLMHead, VocabParallelEmbedding
from moss_tp.layers.kv_cache import KVCache
from moss_tp.layers.linear_layers import LinearLayers
from moss_tp.layers.offload import Offload, WeightStream, streamed_layers
from moss_tp.parallel.tp_group import TPGroup
from moss_tp.weights.checkpoint import Checkpoint
from moss_tp.weights.dummy import make_dummy_weights
from moss_tp.weights.load import check_parameters, fill_parameters, fill_part
from moss_tp.weights.names import config_with
from moss_tp.weights.ranks.manifest import Manifest, is_sharded, rank_name
from moss_tp.weights.ranks.rank_file import EMBEDDING, Part, RankParts
from moss_tp.weights.sharded import check_vectors

HOST = torch.device("cpu")


class MossModel(nn.Module):
    """`token_ids (T,) -> hidden states (T, hidden)`, before the last norm."""

    def __init__(
        self, config: ModelConfig, group: TPGroup, dtype: torch.dtype, offload: Offload | None
    ) -> None:
        super().__init__()
        self.wte = VocabParallelEmbedding(config.vocab_size, config.hidden_size, group, dtype)
        self._streamed = () if offload is None else _streamed(config, group, dtype, offload)
        self._stream = WeightStream(offload.accelerator) if offload and self._streamed else None
        layers = LinearLayers(config, group, dtype)
        self.h = nn.ModuleList(
            MossBlock(
                layers if number not in self._streamed else replace(layers, device=HOST), number
            )
            for number in range(config.num_layers)
        )
        self.ln_f = layer_norm(config, dtype, group.device)
        self._rotary = Rotary.make(config.rotary_dim, config.max_position_embeddings, group.device)
        self._activations = dtype
        self._is_single = group.size == 1
        self._chain: ChainKernel | None = None
        self._norm: NormKernel | None = None  # ln_f, where the kernels have one

    def pack(self, kernels: Kernels) -> None:
        """Packs every block; on a single rank also chains them, where the kernels can.

        Raises ConfigError when weights are to be streamed and the kernels cannot.
        """
        for layer, block in enumerate(self.h):
            cast(MossBlock, block).pack(kernels)
            if self._stream is not None and layer in self._streamed:
                cast(MossBlock, block).move_to(self._stream, layer)
        self._finish(kernels)

    def take(self, kernels: Kernels, parts: RankParts) -> None:
        """Computes with weights that are packed already."""
        for layer, block in enumerate(self.h):
            part = parts.take(f"h.{layer}")
            cast(MossBlock, block).take(kernels, part.description, part.tensors)
        (rows,) = parts.take(EMBEDDING).tensors
        self.wte.take_rows(rows)
        norm = (self.ln_f.weight, self.ln_f.bias)
        for parameter, values in zip(norm, parts.take("ln_f").tensors, strict=True):
            parameter.data.copy_(values)
        self._finish(kernels)

    def _finish(self, kernels: Kernels) -> None:
        self._activations = kernels.activations
        self.ln_f.to(kernels.activations)
        if kernels.norm is not None:
            self._norm = kernels.norm(self.ln_f.weight, self.ln_f.bias, self.ln_f.eps)
        if self._is_single and kernels.chain is not None and self._stream is None:
            self._chain = kernels.chain([block.kernel for block in self.h])

    def forward(self, token_ids: Tensor, plan: StepPlan, kv: KVCache) -> Tensor:
        x: Tensor = self.wte(token_ids).to(self._activations)
        if self._chain is not None:
            return self._chain(x, self._rotary, kv.layers, plan)
        return self._blocks(x, plan, kv)

    def norm(self, x: Tensor, rows: Tensor) -> Tensor:
        """`x (T, hidden) -> (R, hidden)` of the rows whose logits are wanted."""
        if self._norm is not None:
            return self._norm(x, rows)
        normed: Tensor = self.ln_f(x[rows])
        return normed

    def _blocks(self, x: Tensor, plan: StepPlan, kv: KVCache) -> Tensor:
        stream = self._stream
        if stream is not None:
            stream.begin()
        for layer, (block, cache) in enumerate(zip(self.h, kv.layers, strict=True)):
            if stream is not None:
                stream.before(layer)
            x = block(x, self._rotary, cache, plan)
            if stream is not None:
                stream.after(layer)
        return x


class MossForCausalLM(nn.Module):
    """One rank's shard. Its weights are uninitialised until loaded.

    `offload` says how much of the blocks' weights is loaded to the host and streamed.

    Raises ConfigError when the model cannot be split over the group or its device has no kernels.
    """

    def __init__(
        self,
        config: ModelConfig,
        group: TPGroup,
        dtype: torch.dtype,
        back_end: str | None = None,
        offload: Offload | None = None,
    ) -> None:
        super().__init__()
        config.check_tp(group.size)
        self.kernels = choose_kernels(back_end or group.device.type, dtype, config.head_dim)
        self.transformer = MossModel(config, group, dtype, offload)
        self._head = ParallelLMHead(LinearLayers(config, group, dtype))
        self.lm_head = self._head.weight

    @torch.inference_mode()
    def pack(self, lm_head_bits: int | None = None) -> None:
        """Hands the loaded weights over to the kernels. Call it once, before the first step.
        `lm_head_bits`: see `EngineConfig`."""
        self.transformer.pack(self.kernels)
        self._head.pack(self.kernels.linear, lm_head_bits)

    @torch.inference_mode()
    def take(self, parts: RankParts) -> None:
        """Computes with `parts`, which `packed_parts` has made. Instead of `pack`. Raises
        CheckpointError for parts that are not this model's."""
        storage = self._storage
        try:
            self.transformer.take(self.kernels, parts)
            head = parts.take("lm_head")
            self._head.take(storage.linear(head.description, head.tensors))
        except ValueError as error:
            raise CheckpointError(f"the sharded weights are not the model's: {error}") from error

    def packed_parts(
        self, checkpoint: Checkpoint, lm_head_bits: int | None
    ) -> Iterator[tuple[str, Part]]:
        """Loads and packs part after part, the embedding last. None stays: the model cannot be
        used afterwards. Raises CheckpointError."""
        check_parameters(self, checkpoint)
        storage, model = self._storage, self.transformer
        for layer, module in enumerate(model.h):
            fill_part(module, checkpoint, f"transformer.h.{layer}")
            block = cast(MossBlock, module)
            block.pack(self.kernels)
            yield f"h.{layer}", Part(*storage.describe(block.kernel))
            block.kernel = None
        fill_part(model.ln_f, checkpoint, "transformer.ln_f")
        yield "ln_f", Part(None, (model.ln_f.weight, model.ln_f.bias))
        fill_part(self.lm_head, checkpoint, "lm_head")
        self._head.pack(self.kernels.linear, lm_head_bits)
        yield "lm_head", Part(*storage.describe(self._head.linear))
        fill_part(model.wte, checkpoint, "transformer.wte")
        yield EMBEDDING, Part(None, (model.wte.weight,))

    @property
    def _storage(self) -> Storage:
        if self.kernels.storage is None:
            raise ConfigError("these kernels' weights cannot be kept in files: use device cpu")
        return self.kernels.storage

    @torch.inference_mode()
    def forward(
        self, token_ids: Tensor, plan: StepPlan, logit_rows: Tensor, kv: KVCache
    ) -> Tensor | None:
        """fp32 logits `(R, vocab_size)` on rank 0, None elsewhere; fills the cache's slots.

        `token_ids (T,)` are all rows of the step, in the order of `plan`; `logit_rows (R,)` are
        the indices of those after which a token is sampled. Both are int64 for the CPU's kernels,
        int32 for CUDA's.
        """
        logits = self.logits(token_ids, plan, logit_rows, kv)
        return None if logits is None else self.in_fp32(logits)

    @torch.inference_mode()
    def logits(
        self, token_ids: Tensor, plan: StepPlan, logit_rows: Tensor, kv: KVCache
    ) -> Tensor | None:
        """As `forward`, in the dtype of the activations; see `ParallelLMHead.forward`. With CUDA's
        kernels they last until the next ones are computed."""
        return self.head(self.hidden(token_ids, plan, kv), logit_rows)

    @torch.inference_mode()
    def hidden(self, token_ids: Tensor, plan: StepPlan, kv: KVCache) -> Tensor:
        """`(T, hidden)` for `head`, which may be asked for the logits of some rows after others.
        With CUDA's kernels it lasts until the next step."""
        x: Tensor = self.transformer(token_ids, plan, kv)
        return x

    @torch.inference_mode()
    def head(self, x: Tensor, rows: Tensor) -> Tensor | None:
        """The logits of `rows (R,)` of `x`, as of `logits`. One gather, none when R is 0."""
        logits: Tensor | None = self._head(self.transformer.norm(x, rows))
        return logits

    @torch.inference_mode()
    def in_fp32(self, logits: Tensor) -> Tensor:
        """Logits that may be changed, and last."""
        return logits.to(torch.float32, copy=self._reuses_memory)

    @property
    def _reuses_memory(self) -> bool:
        return self.kernels.memory is not None


def load_model(
    path: str | Path,
    config: ModelConfig,
    group: TPGroup,
    dtype: torch.dtype,
    back_end: str | None = None,
    *,
    load_format: str = "auto",
    lm_head_bits: int | None = None,
    offload: Offload | None = None,
) -> MossForCausalLM:
    """This rank's shard of the model directory `path`, ready to run.

    `back_end` names the kernels where they are not those of the group's device. `load_format` and
    `lm_head_bits`: see `EngineConfig`.

    Raises ConfigError when it cannot be split this way, CheckpointError for missing, broken or
    left-over tensors.
    """
    if load_format == "dummy":
        model = MossForCausalLM(config, group, dtype, back_end, offload)
        make_dummy_weights(model, group.rank, group.device)
    elif is_sharded(Path(path)):
        return _sharded_model(Path(path), config, group, dtype, back_end)
    else:
        with Checkpoint.open(path) as checkpoint:
            config = checkpoint.check(config)
            model = MossForCausalLM(config, group, dtype, back_end, offload)
            fill_parameters(model, checkpoint)
    model.pack(lm_head_bits)
    return model.eval()


def _sharded_model(
    directory: Path, config: ModelConfig, group: TPGroup, dtype: torch.dtype, back_end: str | None
) -> MossForCausalLM:
    """From the rank's own file; `resolve_weights` has checked the directory on rank 0's host."""
    manifest = Manifest.read(directory)
    check_vectors(directory, manifest)
    own = config_with(config, manifest.dense, manifest.biased)
    model = MossForCausalLM(own, group, dtype, back_end)
    file = directory / f"{rank_name(group.rank, group.size)}.bin"
    model.take(RankParts.read(file, torch.get_num_threads()))
    return model.eval()


def _streamed(
    config: ModelConfig, group: TPGroup, dtype: torch.dtype, offload: Offload
) -> tuple[int, ...]:
    """The layers whose weights are streamed."""
    block = MossBlock(LinearLayers(config, group, dtype, torch.device("meta")), 0)
    block_bytes = sum(parameter.nbytes for parameter in block.parameters())
    return streamed_layers(config.num_layers, block_bytes, offload.num_bytes)
