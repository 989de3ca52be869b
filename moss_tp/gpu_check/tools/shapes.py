"""Models of the check: MOSS's own shape, and small ones that any machine can compute."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from moss_tp.config import ModelConfig
from moss_tp.quant_config import QuantConfig, QuantFormat


@dataclass(frozen=True)
class Shape:
    """A model's sizes; `bits` 4 or 8 for blocks that are quantized."""

    layers: int
    heads: int
    head_dim: int
    rotary_dim: int
    vocab_size: int
    positions: int = 2048
    bits: int = 0
    group_size: int = 128
    has_act_order: bool = False

    @property
    def hidden(self) -> int:
        return self.heads * self.head_dim

    def with_layers(self, layers: int, vocab_size: int) -> "Shape":
        return replace(self, layers=layers, vocab_size=vocab_size)

    def with_positions(self, positions: int) -> "Shape":
        return replace(self, positions=positions)

    def quantized(self, bits: int, has_act_order: bool = False) -> "Shape":
        return replace(self, bits=bits, has_act_order=has_act_order)

    def write(self, directory: Path) -> Path:
        """Makes a model directory with nothing but `config.json`, for dummy weights."""
        directory.mkdir(parents=True, exist_ok=True)
        fields = {
            "architectures": ["MossForCausalLM"],
            "activation_function": "gelu_new",
            "n_embd": self.hidden,
            "n_head": self.heads,
            "n_layer": self.layers,
            "n_positions": self.positions,
            "rotary_dim": self.rotary_dim,
            "vocab_size": self.vocab_size,
            "layer_norm_epsilon": 1e-5,
            **self._quantization,
        }
        (directory / "config.json").write_text(json.dumps(fields), "utf-8")
        return directory

    @property
    def config(self) -> ModelConfig:
        return ModelConfig(
            num_layers=self.layers,
            hidden_size=self.hidden,
            num_heads=self.heads,
            head_dim=self.head_dim,
            intermediate_size=4 * self.hidden,
            rotary_dim=self.rotary_dim,
            vocab_size=self.vocab_size,
            max_position_embeddings=self.positions,
            layer_norm_eps=1e-5,
            quantization=None if not self.bits else QuantConfig(self._format),
        )

    @property
    def _format(self) -> QuantFormat:
        return QuantFormat(self.bits, self.group_size, has_act_order=self.has_act_order)

    @property
    def _quantization(self) -> dict[str, Any]:
        form = {
            "quant_method": "gptq",
            "bits": self.bits,
            "group_size": self.group_size,
            "desc_act": self.has_act_order,
        }
        return {"quantization_config": form} if self.bits else {}


# fnlp/moss-moon-003: 16.7 B parameters.
MOSS = Shape(layers=34, heads=24, head_dim=256, rotary_dim=64, vocab_size=107008)
TINY = Shape(
    layers=2, heads=4, head_dim=16, rotary_dim=8, vocab_size=277, positions=256, group_size=32
)
