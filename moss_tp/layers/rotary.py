"""Rotary positions in GPT-J's form: interleaved pairs of a head's leading dimensions."""

import torch
from torch import Tensor

BASE = 10000


class Rotary:
    """The angles of every position, in fp32. Su et al. 2021, eq. 34: pair i of `rotary_dim`/2
    turns by `position / BASE**(2i / rotary_dim)`."""

    def __init__(self, rotary_dim: int, max_positions: int, device: torch.device) -> None:
        self._rotary_dim = rotary_dim
        exponents = torch.arange(0, rotary_dim, 2, dtype=torch.int64) / rotary_dim
        positions = torch.arange(max_positions, dtype=torch.int64).float()
        angles = positions[:, None] * (1.0 / BASE**exponents)  # (max_positions, rotary_dim / 2)
        self._cos = angles.cos().to(device)
        self._sin = angles.sin().to(device)

    def at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin at `positions (T,)`, each `(T, 1, rotary_dim / 2)`."""
        return self._cos[positions][:, None], self._sin[positions][:, None]

    def rotate(self, x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
        """`x (T, H, D)` turned, in its own dtype; computed in fp32."""
        cos, sin = angles
        rotated = x[..., : self._rotary_dim].float()
        even, odd = rotated[..., ::2], rotated[..., 1::2]
        turned = torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1)
        return torch.cat((turned.flatten(-2).to(x.dtype), x[..., self._rotary_dim :]), dim=-1)
