"""What the room's kernels are compiled for: constants, warps and stages, for wrappers and specs."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from moss_tp.kernels.cuda.attention.partials import PIECE
from moss_tp.kernels.cuda.runtime.device import capability
from moss_tp.kernels.cuda.runtime.jit import has_wide_dot, next_power_of_2, options
from moss_tp.kernels.cuda.runtime.resources import shared_limit
from moss_tp.kernels.device_plan import LONG_ROWS

HEADS_A_PROGRAM = 4  # of `store_kernel`
MERGES = 4  # programs of `merge_kernel` for a tile and a head, one of which has a decode's row
LARGE_SHARED = 160 << 10  # bytes that a program may have; others may have 99 KiB
MAX_REGISTERS = 255  # of a thread. Left to itself, ptxas may spill to have more programs.


@dataclass(frozen=True)
class Variant:
    """A model's and its cache's types. `cc` is the device's compute capability, 90 for 9.0."""

    dtype: torch.dtype
    cache_dtype: torch.dtype
    head_dim: int
    block_size: int
    cc: int

    @property
    def is_int8(self) -> bool:
        return self.cache_dtype == torch.int8

    def attend(self, rows: int, is_split: bool) -> dict[str, Any]:
        """The constants of `attend_kernel` for tiles of `rows`."""
        return {
            "ROWS": rows,
            "IS_SPLIT": is_split,
            "D": self.head_dim,
            "DP": next_power_of_2(self.head_dim),
            "CHUNK": min(self._max_chunk(), self._power_of_2_factor()),
            "PIECE": PIECE,
            # Without matrix instructions a thread holds all of a tile's tokens for its columns.
            "TOKENS": 16 if self.dtype.itemsize == 4 else 32,
            "BLOCK_SIZE": self.block_size,
            "IS_INT8": self.is_int8,
            "IS_WIDE": has_wide_dot(self.dtype),
        }

    def attend_options(self, rows: int, is_split: bool) -> dict[str, Any]:
        """Stages and warps so that several tiles of K and V are on their way and no register
        spills, with Triton 3.6 as with 3.8. Five stages are two tiles: a tile's place in the cache
        is loaded first.
        """
        if self.dtype.itemsize == 4:
            return {**options(8, 2), "maxnreg": MAX_REGISTERS}
        if rows == LONG_ROWS:
            return options(8, 5)
        if self.is_int8:
            return options(4, 5) if is_split else {**options(4, 3), "maxnreg": MAX_REGISTERS}
        # Three programs to a multiprocessor where they are short.
        stages = 5 if shared_limit(self.cc) >= LARGE_SHARED else 3
        return {**options(4, stages), "maxnreg": 168 if is_split else MAX_REGISTERS}

    def merge(self) -> dict[str, Any]:
        return {"PIECE": PIECE, "D": self.head_dim, "DP": next_power_of_2(self.head_dim)}

    def merge_options(self) -> dict[str, Any]:
        return options(2, 1)

    def store(self, rotary_dim: int) -> dict[str, Any]:
        return {
            "HEADS": HEADS_A_PROGRAM,
            "D": self.head_dim,
            "DP": next_power_of_2(self.head_dim),
            "ROTARY": rotary_dim,
            "BLOCK_SIZE": self.block_size,
            "IS_INT8": self.is_int8,
        }

    def store_options(self) -> dict[str, Any]:
        return options(4, 1)

    def _max_chunk(self) -> int:
        """Of int8, K's 16 bytes at once for each thread; of fp32, what registers hold."""
        if self.dtype.itemsize == 4:
            return 16
        return 128 if self.is_int8 else 64

    def _power_of_2_factor(self) -> int:
        return self.head_dim & -self.head_dim


def variant_of(qkv: Tensor, cache: Tensor) -> Variant:
    """Of `qkv (T, 3, H, D)` and a `(blocks, H, block_size, D)` part of the cache."""
    return Variant(qkv.dtype, cache.dtype, qkv.shape[-1], cache.shape[2], capability(qkv))
