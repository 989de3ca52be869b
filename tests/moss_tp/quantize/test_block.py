"""The plain block against transformers' CodeGen."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from moss_tp.kernels.rotary import Rotary
from moss_tp.quantize.comparison import Head
from moss_tp.quantize.source import Source
from tests.support.tiny_moss import VOCAB_SIZE, load_oracle, make_checkpoint

CPU = torch.device("cpu")


@pytest.mark.parametrize(("heads", "head_dim"), [(4, 16), (8, 8), (2, 32)])
def test_blocks_and_head_compute_what_codegen_does(
    tmp_path: Path, heads: int, head_dim: int
) -> None:
    """Also with two heads, which the four groups of stored rows cut."""
    directory = make_checkpoint(tmp_path, heads=heads, head_dim=head_dim)
    ids = torch.arange(40) * 7 % VOCAB_SIZE
    torch.testing.assert_close(
        log_probs(directory, ids), expected(directory, ids), rtol=1e-3, atol=1e-3
    )


def expected(directory: Path, ids: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = load_oracle(directory)(ids[None]).logits[0]
    return logits.log_softmax(-1)


def log_probs(directory: Path, ids: Tensor) -> Tensor:
    with Source(directory) as source:
        config = source.config
        rotary = Rotary.make(config.rotary_dim, config.max_position_embeddings, CPU)
        x = source.read("transformer.wte.weight")[ids]
        for layer in range(config.num_layers):
            x = source.block(layer, rotary, torch.float32, CPU)(x)
        names = ("transformer.ln_f.weight", "transformer.ln_f.bias", "lm_head.weight")
        norm, bias, weight = (source.read(name) for name in names)
        head = Head((norm, bias), config.layer_norm_eps, weight, source.read("lm_head.bias"))
    return head.log_probs(x)
