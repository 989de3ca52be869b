"""A small model's random weights as a file, so that CPU and GPU load the same ones."""

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from moss_tp.gpu_check.tools.shapes import Shape

# Kernels for this head size exist, and CPU engines are quick with the rest.
SMALL = Shape(layers=3, heads=4, head_dim=64, rotary_dim=32, vocab_size=277, positions=256)


def write_checkpoint(directory: Path, shape: Shape = SMALL, seed: int = 0) -> Path:
    """Returns `directory`. Weights vary enough for greedy tokens to vary."""
    shape.write(directory)
    numbers = torch.Generator().manual_seed(seed)
    weights = {}
    for name, size in _sizes(shape):
        noise = torch.randn(size, generator=numbers)
        is_embedding, is_norm = name.endswith("wte.weight"), ".ln_" in name
        scale = (1.0 if is_embedding else 2 / size[-1] ** 0.5) if len(size) == 2 else 0.3
        weights[name] = noise * scale + float(is_norm and name.endswith("weight"))
    save_file(weights, directory / "model.safetensors")
    return directory


def _sizes(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, inner = shape.hidden, 4 * shape.hidden
    yield "transformer.wte.weight", (shape.vocab_size, hidden)
    for layer in range(shape.layers):
        block = f"transformer.h.{layer}"
        yield f"{block}.ln_1.weight", (hidden,)
        yield f"{block}.ln_1.bias", (hidden,)
        yield f"{block}.attn.qkv_proj.weight", (3 * hidden, hidden)
        yield f"{block}.attn.out_proj.weight", (hidden, hidden)
        yield f"{block}.mlp.fc_in.weight", (inner, hidden)
        yield f"{block}.mlp.fc_in.bias", (inner,)
        yield f"{block}.mlp.fc_out.weight", (hidden, inner)
        yield f"{block}.mlp.fc_out.bias", (hidden,)
    yield "transformer.ln_f.weight", (hidden,)
    yield "transformer.ln_f.bias", (hidden,)
    yield "lm_head.weight", (shape.vocab_size, hidden)
    yield "lm_head.bias", (shape.vocab_size,)
