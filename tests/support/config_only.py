"""A model directory with nothing but `config.json`, as `load_format="dummy"` needs it."""

import json
from pathlib import Path
from typing import Any


def config_only(
    directory: Path,
    *,
    heads: int = 4,
    head_dim: int = 16,
    layers: int = 2,
    rotary_dim: int = 8,
    vocab_size: int = 277,
    positions: int = 256,
    **fields_besides: Any,
) -> Path:
    """Writes MOSS's config for these sizes; returns `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    fields = {
        "architectures": ["MossForCausalLM"],
        "n_embd": heads * head_dim,
        "n_head": heads,
        "n_layer": layers,
        "n_positions": positions,
        "rotary_dim": rotary_dim,
        "vocab_size": vocab_size,
        "layer_norm_epsilon": 1e-5,
        **fields_besides,
    }
    (directory / "config.json").write_text(json.dumps(fields), "utf-8")
    return directory
