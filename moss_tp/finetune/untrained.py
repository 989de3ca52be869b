"""Writes a model directory with random weights, to train from scratch."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import CodeGenConfig, CodeGenForCausalLM, set_seed

from moss_tp.tokenizer import Tokenizer

_EMBEDDING_STD = 0.1
_HEAD_SCALE = 0.2  # of the LM head's weights, relative to the embeddings


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a MOSS model. `num_heads` must be a multiple of 4, the groups of stored qkv rows."""

    num_layers: int
    hidden_size: int
    num_heads: int
    intermediate_size: int
    rotary_dim: int
    max_position_embeddings: int


def write_untrained(directory: Path, shape: ModelShape, seed: int) -> None:
    """Adds config and random weights to a `directory` that has a tokenizer."""
    tokenizer = Tokenizer.from_dir(directory)
    config = CodeGenConfig(
        vocab_size=tokenizer.vocab_size,
        n_positions=shape.max_position_embeddings,
        n_ctx=shape.max_position_embeddings,
        n_embd=shape.hidden_size,
        n_layer=shape.num_layers,
        n_head=shape.num_heads,
        n_inner=shape.intermediate_size,
        rotary_dim=shape.rotary_dim,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=tokenizer.special_id("<|endoftext|>"),
        eos_token_id=tokenizer.eos_id,
        tie_word_embeddings=False,
    )
    set_seed(seed)
    model = CodeGenForCausalLM(config)
    _initialise(model)
    model.save_pretrained(directory)


@torch.no_grad()
def _initialise(model: CodeGenForCausalLM) -> None:
    """Random weights from which a narrow model soon learns to copy.

    Matrices preserve the scale of their input. Embeddings are large in the residual stream and
    the head starts parallel to them, so a block that copies a token's embedding predicts it.
    """
    depth = (2 * model.config.n_layer) ** -0.5
    for name, weight in model.named_parameters():
        if name.endswith("wte.weight"):
            weight.normal_(0, _EMBEDDING_STD)
        elif weight.ndim == 2:
            is_output = name.endswith(("out_proj.weight", "fc_out.weight"))
            weight.normal_(0, weight.shape[1] ** -0.5 * (depth if is_output else 1))
    model.lm_head.weight.copy_(model.transformer.wte.weight * _HEAD_SCALE)
