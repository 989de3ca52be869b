"""The MLP's columns in the order of fc_out's groups.

A column is an output of fc_in and an input of fc_out; which number it has is free. Act-order
spreads each group over all of fc_out's inputs, and so over all leaves (see `kernels.leaves`), in
parts that kernels fill up. In order of groups, a leaf has whole ones.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from moss_tp.config import FC_IN, FC_OUT
from moss_tp.kernels.words import pack, unpack
from moss_tp.quant_config import BIAS, G_IDX, QWEIGHT, QZEROS, SCALES


def sort_columns(tensors: Mapping[str, Tensor], bits: int) -> dict[str, Tensor]:
    """A block's tensors, by their names behind the block's, as those of the same function."""
    groups = tensors[f"{FC_OUT}.{G_IDX}"]
    order = torch.argsort(groups, stable=True)
    levels = unpack(tensors[f"{FC_OUT}.{QWEIGHT}"], bits)
    zeros = unpack(tensors[f"{FC_IN}.{QZEROS}"].T, bits)  # less 1, each within its place
    return {
        **tensors,
        f"{FC_OUT}.{QWEIGHT}": pack(levels[order], bits),
        f"{FC_OUT}.{G_IDX}": groups[order],
        f"{FC_IN}.{QWEIGHT}": tensors[f"{FC_IN}.{QWEIGHT}"][:, order],
        f"{FC_IN}.{SCALES}": tensors[f"{FC_IN}.{SCALES}"][:, order],
        f"{FC_IN}.{QZEROS}": pack(zeros[order], bits).T.contiguous(),
        f"{FC_IN}.{BIAS}": tensors[f"{FC_IN}.{BIAS}"][order],
    }
