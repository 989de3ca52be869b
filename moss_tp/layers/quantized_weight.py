"""A rank's part of a linear layer that is stored in GPTQ's layout.

    column parallel   some outputs: columns of qweight, scales and qzeros; all of g_idx
    row parallel      some inputs: rows of qweight, entries of g_idx, and of scales and qzeros the
                      rows of those groups that one of these inputs is in

A group that two ranks' inputs are in is on both. Groups may be in any order (act-order), so a rank
of a row-parallel layer has to know its g_idx before it can tell which groups are its own.
"""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from moss_tp.errors import ConfigError
from moss_tp.kernels.quantized import QuantizedWeight
from moss_tp.kernels.words import unpack
from moss_tp.layers.parallel_weight import BiasPart, bias_part, empty_parameter
from moss_tp.parallel.tp_group import TPGroup
from moss_tp.quant_config import BIAS, G_IDX, QWEIGHT, QZEROS, SCALES, QuantFormat, in_every_place
from moss_tp.weights.names import linear_tensors
from moss_tp.weights.random_values import fill_words
from moss_tp.weights.shard import Shard

Spans = tuple[tuple[int, int], ...]


class QuantizedParallelWeight(nn.Module):
    """As DenseParallelWeight: `shard` is that of the weight `(outputs, inputs)`.

    Raises ConfigError for a shard that is cut within a word.
    """

    def __init__(
        self,
        form: QuantFormat,
        shard: Shard,
        group: TPGroup,
        dtype: torch.dtype,
        *,
        has_bias: bool = False,
        device: torch.device | None = None,
        num_outputs: int | None = None,
    ) -> None:
        super().__init__()
        self.form, self._dtype = form, dtype
        self._shard, self._stored = shard, linear_tensors(shard.shape[0], shard.shape[1], form)
        self._word_spans = _in_words(shard.spans, form)
        outputs, inputs = shard.local_shape
        outputs = num_outputs or outputs
        groups, place = form.num_groups(shard.shape[1]), device or group.device
        # First: what is read of the groups depends on it.
        self.g_idx = nn.Parameter(
            torch.zeros(inputs, dtype=torch.int32, device=place), requires_grad=False
        )
        words = partial(empty_parameter, device=place, dtype=torch.int32)
        self.qweight = words(inputs // form.per_word, outputs)
        self.qzeros = words(groups, outputs // form.per_word)
        self.scales = empty_parameter(groups, outputs, device=place, dtype=torch.float16)
        self._bias = bias_part(shard, num_outputs) if has_bias else BiasPart()
        self.bias = self._bias.parameter(place, dtype)

    @property
    def shards(self) -> Mapping[str, Shard]:
        """Those of scales and zeros follow from `g_idx` where the layer is row parallel."""
        if self._shard.dim == 0:
            words = {QWEIGHT: (1, self._shard.spans), QZEROS: (1, self._word_spans)}
            parts = {G_IDX: (0, ((0, self._shard.shape[1]),)), SCALES: (1, self._shard.spans)}
        else:
            runs = _runs(self._used_groups())
            words = {QWEIGHT: (0, self._word_spans), QZEROS: (0, runs)}
            parts = {G_IDX: (0, self._shard.spans), SCALES: (0, runs)}
        shards = {
            name: Shard(self._stored[name].shape, dim, spans)
            for name, (dim, spans) in (words | parts).items()
        }
        return shards if self._bias.shard is None else shards | {BIAS: self._bias.shard}

    def kernel_weight(self) -> QuantizedWeight:
        """What a kernel multiplies by on this rank. Of a row-parallel layer it has the rank's own
        groups only."""
        groups, num_groups = self.g_idx.data, len(self.scales)
        if self._shard.dim == 1:
            used = self._used_groups()
            groups, num_groups = torch.searchsorted(used, groups).int(), len(used)
        return QuantizedWeight(
            packed=self.qweight.data,
            scales=self.scales[:num_groups],
            zeros=_zeros(self.qzeros[:num_groups], self.form),
            groups=groups,
            bits=self.form.bits,
            dtype=self._dtype,
            bias=self.bias,
        )

    def fill_randomly(self, numbers: torch.Generator, common: torch.Generator) -> None:
        """All levels, and weights as large as those made for a dense layer. `numbers` is of the
        device, `common` of the host and in the same state on every rank."""
        inputs = self._shard.shape[1]
        groups = torch.arange(inputs) // _group_size(self.form, inputs)
        if self.form.has_act_order:
            groups = groups[torch.randperm(inputs, generator=common)]
        spans = self.shards[G_IDX].spans
        self.g_idx.copy_(torch.cat([groups[start:stop] for start, stop in spans]))
        for words in (self.qweight, self.qzeros):
            fill_words(words.data, numbers)
        # Zeros are close to the middle: others add the sum of the inputs to every output.
        bits, middle = self.form.bits, 2 ** (self.form.bits - 1)
        self.qzeros.bitwise_and_(in_every_place(3, bits))
        self.qzeros.add_(in_every_place(middle - 2 - self.form.zero_offset, bits))
        std = (inputs * ((4**bits - 1) / 12 + 1.25)) ** -0.5  # variances of levels and of zeros
        own = self._shard.local_shape[0]
        self.scales.zero_()[:, :own] = std

    def _used_groups(self) -> Tensor:
        """In order, those that an input of this rank is in."""
        used: Tensor = torch.unique(self.g_idx)
        return used


def _group_size(form: QuantFormat, inputs: int) -> int:
    return inputs if form.group_size == -1 else form.group_size


def _in_words(spans: Spans, form: QuantFormat) -> Spans:
    for edge in (edge for span in spans for edge in span):
        if edge % form.per_word:
            raise ConfigError(
                f"a layer of {form.bits} bits, {form.per_word} to a word, cannot be cut at {edge}"
            )
    return tuple((start // form.per_word, stop // form.per_word) for start, stop in spans)


def _runs(sorted_numbers: Tensor) -> Spans:
    """The numbers as spans of neighbours."""
    numbers = sorted_numbers.tolist()
    starts = [n for n, before in zip(numbers, [None, *numbers], strict=False) if n - 1 != before]
    stops = [
        n + 1 for n, after in zip(numbers, [*numbers[1:], None], strict=True) if n + 1 != after
    ]
    return tuple(zip(starts, stops, strict=True))


def _zeros(words: Tensor, form: QuantFormat) -> Tensor:
    """`(groups, outputs)` int16 of stored zeros `(groups, outputs / values in a word)`."""
    offset = form.zero_offset
    if form.borrows:
        words, offset = words + in_every_place(offset, form.bits), 0
    return unpack(words.T, form.bits).T.to(torch.int16) + offset
