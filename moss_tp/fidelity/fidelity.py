"""What is measured of a model's predictions beside another one's, on the same tokens."""

from dataclasses import dataclass
from math import exp

from torch import Tensor


@dataclass(frozen=True)
class Fidelity:
    """`perplexity` of the text; the mean KL divergence of a token's distribution from the other
    model's, in nats; how often the likeliest token is the other's."""

    perplexity: float
    kl: float
    top1: float


class FidelitySums:
    """Of one model's predictions, over any number of pieces of text."""

    def __init__(self) -> None:
        self._loss = self._kl = 0.0
        self._num_same = self._num_targets = self._num_rows = 0

    def add(self, predicted: Tensor, true: Tensor, targets: Tensor) -> None:
        """Log probabilities `(T, V)` in fp32, its own and the other's; `targets` are the ids that
        follow, at most T."""
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
