"""The model that is quantized: its tensors, read a block at a time."""

from collections.abc import Mapping
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from moss_tp.config import ModelConfig
from moss_tp.kernels.rotary import Rotary
from moss_tp.quantize.block import LINEARS, Block
from moss_tp.weights.checkpoint import Checkpoint

_BLOCKS = "transformer.h."


class Source:
    """A model directory. A context manager: tensors can be read inside.

    Raises CheckpointError for weights that are broken or not the config's.
    """

    def __init__(self, directory: Path) -> None:
        self.config = ModelConfig.from_dir(directory)
        self._checkpoint = Checkpoint.open(directory)
        self._checkpoint.check(self.config)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._checkpoint.__exit__(error_type, error, traceback)

    def read(self, name: str) -> Tensor:
        """The whole tensor, as it is stored."""
        stored = self._checkpoint.tensors[name]
        return stored.read(0, 0, stored.header.shape[0])

    def names_of_block(self, layer: int) -> list[str]:
        """Without those of one number: constants that old checkpoints carry."""
        prefix = f"{_BLOCKS}{layer}."
        headers = self._checkpoint.headers
        return sorted(n for n in headers if n.startswith(prefix) and headers[n].shape)

    def names_outside(self) -> list[str]:
        """Of the tensors that are in no block: they are not quantized."""
        return sorted(n for n in self._checkpoint.tensors if not n.startswith(_BLOCKS))

    def block(self, layer: int, rotary: Rotary, dtype: torch.dtype, device: torch.device) -> Block:
        """Computes in `dtype` on `device`."""
        prefix = f"{_BLOCKS}{layer}."
        tensors = {
            name.removeprefix(prefix): self.read(name).to(device, dtype)
            for name in self.names_of_block(layer)
            if name.endswith((".weight", "ln_1.bias", "mlp.fc_in.bias", "mlp.fc_out.bias"))
        }
        return Block.of(self.config, tensors, rotary)

    def num_bytes_beside_linears(self, item_bytes: Mapping[str, int]) -> int:
        """Of all tensors but the linears' weights. `item_bytes` are dtypes' in safetensors'
        spelling; others have at most as many as the largest."""
        linears = tuple(f".{linear}.weight" for linear in LINEARS)
        largest = max(item_bytes.values())
        return sum(
            prod(header.shape) * item_bytes.get(header.dtype, largest)
            for name, header in self._checkpoint.headers.items()
            if not name.endswith(linears)
        )

    def weight(self, layer: int, linear: str, device: torch.device) -> Tensor:
        """A linear's weight `(inputs, outputs)` in fp32, for the caller to change."""
        stored = self.read(f"{_BLOCKS}{layer}.{linear}.weight").to(device)
        return stored.T.to(torch.float32, memory_format=torch.contiguous_format, copy=True)


def linear_shapes(config: ModelConfig) -> Mapping[str, tuple[int, int]]:
    """Inputs and outputs of each linear of a block."""
    hidden, inner = config.hidden_size, config.intermediate_size
    shapes = ((hidden, 3 * hidden), (hidden, hidden), (hidden, inner), (inner, hidden))
    return dict(zip(LINEARS, shapes, strict=True))
