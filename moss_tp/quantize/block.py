"""A transformer block in plain torch, on whole sequences, with its linears one by one.

    n = ln_1(x)    a = attention(qkv_proj(n))    m = gelu(fc_in(n))    x + out_proj(a) + fc_out(m)

Weights keep their published names and order: qkv_proj's outputs come in groups of [q | v | k].
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from moss_tp.config import FC_IN, FC_OUT, OUT_PROJ, QKV_GROUPS, QKV_PROJ, ModelConfig
from moss_tp.kernels.base import DenseWeight
from moss_tp.kernels.rotary import Rotary, rotate

LINEARS = (QKV_PROJ, OUT_PROJ, FC_IN, FC_OUT)


@dataclass(frozen=True)
class Block:
    """Every tensor is in the dtype of the activations. `x (T, hidden)` is one sequence."""

    config: ModelConfig
    norm: tuple[Tensor, Tensor]  # (hidden,) weight and bias
    linears: Mapping[str, DenseWeight]
    rotary: Rotary

    @classmethod
    def of(cls, config: ModelConfig, tensors: Mapping[str, Tensor], rotary: Rotary) -> Self:
        """From tensors by their names behind the block's."""
        linears = {
            name: DenseWeight(tensors[f"{name}.weight"], tensors.get(f"{name}.bias"))
            for name in LINEARS
        }
        return cls(config, (tensors["ln_1.weight"], tensors["ln_1.bias"]), linears, rotary)

    def with_linears(self, linears: Mapping[str, DenseWeight]) -> "Block":
        """The same block with some of its linears replaced."""
        return replace(self, linears={**self.linears, **linears})

    def normed(self, x: Tensor) -> Tensor:
        """The inputs of qkv_proj and fc_in."""
        return F.layer_norm(x, x.shape[-1:], *self.norm, self.config.layer_norm_eps)

    def attended(self, normed: Tensor) -> Tensor:
        """The inputs of out_proj."""
        grouped = self._linear(QKV_PROJ, normed).view(len(normed), QKV_GROUPS, 3, -1)
        q, v, k = (
            grouped[:, :, part].reshape(len(normed), -1, self.config.head_dim) for part in range(3)
        )
        positions = torch.arange(len(normed), device=normed.device)
        q, k = (rotate(heads, self.rotary, positions) for heads in (q, k))
        q, k, v = (heads.transpose(0, 1)[None] for heads in (q, k, v))  # (1, H, T, D)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return out[0].transpose(0, 1).flatten(1)

    def expanded(self, normed: Tensor) -> Tensor:
        """The inputs of fc_out."""
        return F.gelu(self._linear(FC_IN, normed), approximate="tanh")

    def __call__(self, x: Tensor) -> Tensor:
        normed = self.normed(x)
        attended = self._linear(OUT_PROJ, self.attended(normed))
        return x + attended + self._linear(FC_OUT, self.expanded(normed))

    def _linear(self, name: str, x: Tensor) -> Tensor:
        linear = self.linears[name]
        return F.linear(x, linear.weight, linear.bias)
