"""Values of 4 or 8 bits in words of int32, the lowest bits first: as GPTQ's layout has them."""

import torch
from torch import Tensor

from moss_tp.quant_config import WORD_BITS


def pack(values: Tensor, bits: int) -> Tensor:
    """`values (n, m)` of an integer dtype to int32 `(n * bits / 32, m)`."""
    count = WORD_BITS // bits
    words = values[::count].int()
    for place in range(1, count):
        words |= values[place::count].int() << (bits * place)
    return words


def unpack(words: Tensor, bits: int) -> Tensor:
    """`words (n, m)` int32 to uint8 `(n * 32 / bits, m)`."""
    shifts = torch.arange(0, WORD_BITS, bits, device=words.device, dtype=torch.int32)
    spread = words[:, None] >> shifts[:, None] & 2**bits - 1
    values: Tensor = spread.to(torch.uint8).flatten(0, 1)
    return values
