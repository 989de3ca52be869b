"""The sampler as a step on a device uses it; `kernels.cuda.sampling` is the engine's."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
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
        """Samples a token for each row of fp32 `logits (R, vocab_size)`, which it may change."""
        ...

    def decode(self, outputs: Tensor, rows: Sequence[SamplingRow]) -> list[SampledToken]:
        """The tokens of `rows`, of a copy of `outputs` on the host."""
        ...


def take_ids(token_ids: Tensor, sampled_ids: Tensor) -> Tensor:
    raise NotImplementedError
