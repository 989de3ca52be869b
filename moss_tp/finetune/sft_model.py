"""A CodeGen model with its training loss: the module that accelerate wraps.

The LM head runs only on positions with a loss: with short replies, half of all tokens.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CodeGenConfig, CodeGenForCausalLM

from moss_tp.config import ModelConfig
from moss_tp.errors import CheckpointError
from moss_tp.finetune.dataset import IGNORED
from moss_tp.json_file import read_json
from moss_tp.weights.checkpoint import Checkpoint


class SFTModel(nn.Module):
    """Next-token loss over the labelled positions of a batch."""

    def __init__(self, causal_lm: CodeGenForCausalLM) -> None:
        super().__init__()
        self.causal_lm = causal_lm

    def forward(self, ids: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean loss, number of correct predictions and number of labels of a `(B, T)` batch."""
        hidden = self.causal_lm.transformer(input_ids=ids, use_cache=False).last_hidden_state
        targets = labels[:, 1:]
        is_labelled = targets != IGNORED  # (B, T - 1)
        logits = self.causal_lm.lm_head(hidden[:, :-1][is_labelled])  # (N, V)
        targets = targets[is_labelled]
        loss = F.cross_entropy(logits.float(), targets)
        num_correct = (logits.argmax(-1) == targets).sum()
        return loss, num_correct, torch.tensor(targets.numel(), device=ids.device)


def load_causal_lm(directory: Path, gradient_checkpointing: bool) -> CodeGenForCausalLM:
    """The checkpoint in fp32 as CodeGen, whose tensors MOSS's are.

    The model type in its config is ignored, and Python code in the directory is never run. Raises
    CheckpointError for weights that are broken, quantized or not the config's: none is left at
    random.
    """
    published = ModelConfig.from_dir(directory)
    if published.quantization is not None:
        raise CheckpointError(
            f"{directory} is quantized to {published.quantization.format.bits} bits, which cannot "
            "be fine-tuned: use the model's unquantized sibling"
        )
    with Checkpoint.open(directory) as checkpoint:
        checkpoint.check(published)
    config = CodeGenConfig.from_dict(read_json(directory / "config.json"))
    config.architectures = ["CodeGenForCausalLM"]
    config.tie_word_embeddings = False
    model = CodeGenForCausalLM.from_pretrained(directory, config=config, dtype=torch.float32)
    if gradient_checkpointing:
        model.gradient_checkpointing_enable()  # type: ignore[no-untyped-call]
    return model
