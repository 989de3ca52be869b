"""The sampler as a step on a device uses it; `kernels.cuda.sampling` is the engine's."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moss_tp.sampling.row import SampledToken, SamplingRow


class StepSampler(Protocol):
    """Its device tensors have fixed addresses, so that a graph may hold `sample`."""

    @property
    def num_ints(self) -> int:
        """Of its block of a step's input."""
        ...

    @property
    def outputs(self) -> Tensor:
        """What a step has sampled, packed: int32, on the device."""
        ...

    @property
    def token_ids(self) -> Tensor:
        """int32 `(max_logit_rows,)` on the device: the ids that the last step has sampled."""
        ...

    def encode(self, rows: Sequence[SamplingRow], block: NDArray[np.int32], num_rows: int) -> None:
        """Fills the block of a step of `num_rows` rows of logits; those beyond `rows` are idle."""
        ...

    def sample(self, logits: Tensor, block: Tensor) -> None:
        """Samples a token for each row of `logits (R, vocab_size)`, raw ones in the model's dtype.
        They are not changed."""
        ...

    def decode(self, outputs: Tensor, rows: Sequence[SamplingRow]) -> list[SampledToken]:
        """The tokens of `rows`, of a copy of `outputs` on the host."""
        ...


class IdsOnly:
    """On ranks above 0, which sample nothing: they receive the ids."""

    num_ints = 0

    def __init__(self, max_logit_rows: int, device: torch.device) -> None:
        self.outputs = torch.zeros(0, dtype=torch.int32, device=device)
        self.token_ids = torch.zeros(max_logit_rows, dtype=torch.int32, device=device)

    def encode(self, rows: Sequence[SamplingRow], block: NDArray[np.int32], num_rows: int) -> None:
        """There is nothing to encode."""

    def sample(self, logits: Tensor, block: Tensor) -> None:
        raise RuntimeError("a rank above 0 samples nothing")

    def decode(self, outputs: Tensor, rows: Sequence[SamplingRow]) -> list[SampledToken]:
        return []
