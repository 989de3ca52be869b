"""How far models' predictions are from the source's, on the same tokens."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from moss_tp.fidelity.fidelity import Fidelity, FidelitySums

Hidden = Callable[[], Iterator[Tensor]]  # the sequences' (T, hidden) behind the last block
_ROWS = 256  # whose logits are in memory at once


@dataclass(frozen=True)
class Head:
    """The last norm and the LM head, which are not quantized."""

    norm: tuple[Tensor, Tensor]
    eps: float
    weight: Tensor  # (vocabulary, hidden)
    bias: Tensor

    def log_probs(self, x: Tensor) -> Tensor:
        """`x (T, hidden)` of the last block; `(T, vocabulary)` in fp32."""
        normed = F.layer_norm(x, x.shape[-1:], *self.norm, self.eps)
        return F.linear(normed, self.weight, self.bias).float().log_softmax(-1)


def compare(
    head: Head, source: Hidden, others: Mapping[str, Hidden], sequences: Sequence[Tensor]
) -> dict[str, Fidelity]:
    """By name; the source's own is under "source". `sequences` are the ids `(T,)` int64."""
    sums = {name: FidelitySums() for name in ("source", *others)}
    streams = {"source": source(), **{name: hidden() for name, hidden in others.items()}}
    for ids in sequences:
        hidden = {name: next(stream) for name, stream in streams.items()}
        for start in range(0, len(ids), _ROWS):
            true = head.log_probs(hidden["source"][start : start + _ROWS])
            targets = ids[start + 1 : start + _ROWS + 1]
            for name, x in hidden.items():
                is_source = name == "source"
                predicted = true if is_source else head.log_probs(x[start : start + _ROWS])
                sums[name].add(predicted, true, targets)
    return {name: one.fidelity for name, one in sums.items()}
