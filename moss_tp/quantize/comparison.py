"""How far models' predictions are from the source's, on the same tokens."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import exp

import torch.nn.functional as F
from torch import Tensor

Hidden = Callable[[], Iterator[Tensor]]  # the sequences' (T, hidden) behind the last block
_ROWS = 256  # whose logits are in memory at once


@dataclass(frozen=True)
class Fidelity:
    """`perplexity` of the text; the mean KL divergence of a token's distribution from the source's,
    in nats; how often the likeliest token is the source's."""

    perplexity: float
    kl: float
    top1: float


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
    sums = {name: _Sums() for name in ("source", *others)}
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


class _Sums:
    """Of one model's predictions."""

    def __init__(self) -> None:
        self._loss = self._kl = 0.0
        self._num_same = self._num_targets = self._num_rows = 0

    def add(self, predicted: Tensor, true: Tensor, targets: Tensor) -> None:
        """Log probabilities `(T, V)`; the ids that follow, at most T."""
        own = predicted[: len(targets)].gather(1, targets[:, None])
        self._loss -= float(own.double().sum())
        self._kl += float((true.exp() * (true - predicted)).sum(-1).double().sum())
        self._num_same += int((predicted.argmax(-1) == true.argmax(-1)).sum())
        self._num_targets += len(targets)
        self._num_rows += len(predicted)

    @property
    def fidelity(self) -> Fidelity:
        return Fidelity(
            perplexity=exp(self._loss / self._num_targets),
            kl=self._kl / self._num_rows,
            top1=self._num_same / self._num_rows,
        )
