"""Rotary position embedding in GPT-J's form: interleaved pairs of a head's first dimensions."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

BASE = 10000


@dataclass(frozen=True)
class Rotary:
    """fp32 cos and sin of every position's angles. Su et al. 2021, eq. 34: pair i of
    `rotary_dim`/2 is rotated by `position / BASE**(2i / rotary_dim)`."""

    cos: Tensor  # (max_positions, rotary_dim / 2)
    sin: Tensor

    @classmethod
    def make(cls, rotary_dim: int, max_positions: int, device: torch.device) -> Self:
        exponents = torch.arange(0, rotary_dim, 2, dtype=torch.int64) / rotary_dim
        positions = torch.arange(max_positions, dtype=torch.int64).float()
        angles = positions[:, None] * (1.0 / BASE**exponents)
        return cls(angles.cos().to(device), angles.sin().to(device))

    @property
    def dim(self) -> int:
        return 2 * self.cos.shape[1]


def rotate(x: Tensor, rotary: Rotary, positions: Tensor) -> Tensor:
    """`x (T, H, D)` rotated, in its own dtype; computed in fp32. `positions (T,)` are int64."""
    cos, sin = rotary.cos[positions][:, None], rotary.sin[positions][:, None]
    pairs = x[..., : rotary.dim].float()
    even, odd = pairs[..., ::2], pairs[..., 1::2]
    rotated = torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1)
    return torch.cat((rotated.flatten(-2).to(x.dtype), x[..., rotary.dim :]), dim=-1)
