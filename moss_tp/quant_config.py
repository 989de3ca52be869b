"""Which linear layers of a model are quantized, and how they are stored: GPTQ's layout.

    w[o, i] = scales[g, o] * (q[i, o] - (zeros[g, o] + zero_offset))        g = g_idx[i]

Values are packed into words of 32 bits, lowest bits first: q along the inputs, zeros along the
outputs. `quant_fields` reads this from a model directory; it knows no tensors.

A stored zero of all ones is read in two ways. MOSS's kernel adds the offset to each value, without
a mask: 15 of 4 bits means 16. GPTQModel adds it to whole words, as it has subtracted it: 15 means
0, which borrowed 1 from the value behind it.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Self

WORD_BITS = 32
LM_HEAD = "lm_head"
WEIGHT = "weight"  # of a layer that is not quantized
QWEIGHT, QZEROS, SCALES, G_IDX, BIAS = "qweight", "qzeros", "scales", "g_idx", "bias"
QUANTIZED = (QWEIGHT, QZEROS, SCALES, G_IDX)


@dataclass(frozen=True)
class QuantFormat:
    """How one layer is stored. `group_size` -1 means that all of its inputs are one group.
    `has_act_order` only makes dummy weights so: a checkpoint's `g_idx` says it itself."""

    bits: int  # 4 or 8
    group_size: int
    zero_offset: int = 1  # 0 in the format gptq_v2
    borrows: bool = False  # whether the offset was taken from whole words of zeros
    has_act_order: bool = False

    @property
    def per_word(self) -> int:
        """How many values are in a word: what must divide wherever the layer is cut."""
        return WORD_BITS // self.bits

    def num_groups(self, inputs: int) -> int:
        return 1 if self.group_size == -1 else -(-inputs // self.group_size)

    def num_bytes(self, outputs: int, inputs: int) -> int:
        """Of a layer's levels, scales and zeros, as they are stored."""
        groups = self.num_groups(inputs) * outputs
        return (outputs * inputs + groups) * self.bits // 8 + 2 * groups


@dataclass(frozen=True)
class Rule:
    """Layers whose name `pattern` matches from its start have this format; None: not quantized."""

    pattern: str
    format: QuantFormat | None


@dataclass(frozen=True)
class QuantConfig:
    """The linear layers of the blocks have `format` unless the first rule that matches says
    otherwise, or `block_layers` (names inside a block) lists others only.

    `dense` and `biased` are what a checkpoint's tensors tell: layers that it has unquantized, and
    those with a bias that the model has none of."""

    format: QuantFormat
    has_head: bool = False
    rules: tuple[Rule, ...] = ()
    block_layers: frozenset[str] | None = None
    dense: frozenset[str] = frozenset()
    biased: frozenset[str] = frozenset()

    def format_of(self, layer: str) -> QuantFormat | None:
        """The format of a layer, by its name in the model; None: it is not quantized."""
        if layer in self.dense or not self._is_listed(layer):
            return None
        for rule in self.rules:
            if re.match(rule.pattern, layer):
                return rule.format
        return self.format

    def stored_as(self, layers: Collection[str], names: Collection[str]) -> Self:
        """This config for a checkpoint whose tensors are `names`."""
        dense = {
            layer
            for layer in layers
            if f"{layer}.{WEIGHT}" in names
            and not any(f"{layer}.{part}" in names for part in QUANTIZED)
        }
        biased = {layer for layer in layers if f"{layer}.{BIAS}" in names} - dense
        return replace(self, dense=frozenset(dense), biased=frozenset(biased))

    def with_head(self, form: QuantFormat) -> Self:
        """This config with an LM head in `form`."""
        rules = (Rule(f"{LM_HEAD}$", form), *self.rules)
        return replace(self, has_head=True, rules=rules, dense=self.dense - {LM_HEAD})

    def _is_listed(self, layer: str) -> bool:
        if layer == LM_HEAD:
            return self.has_head
        within = layer.split(".", 3)[-1]  # behind transformer.h.<number>
        return self.block_layers is None or within in self.block_layers


def in_every_place(value: int, bits: int) -> int:
    """The word, as an int32, with `value` in each of its places."""
    word = sum(value << place for place in range(0, WORD_BITS, bits))
    return int.from_bytes(word.to_bytes(4, "little"), "little", signed=True)
