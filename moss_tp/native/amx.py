"""Intel's AMX: eight tile registers of 16 rows times 64 bytes, and their dot products of bf16.

    sums (16, 16) fp32 += x (16, 32) bf16 @ weights (32, 16) bf16

A tile of weights is 16 rows, each with two neighbouring inputs of 16 columns. The products of even
inputs are one sum, those of odd inputs another, each in the order of the inputs, and both together
are added to what was there; fp32 throughout, every product and addition as one FMA. Subnormal
numbers count as zero. (Intel's manual, TDPBF16PS.)

A thread configures its tiles before it uses them, and releases them so that a change of threads
need not keep them.
"""

import ctypes
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from moss_tp.native.llvm import I8, call, intrinsic
from moss_tp.native.vectors import has_cpu_feature

TILE_ROWS = 16
TILE_ROW_BYTES = 64
NUM_TILES = 8
CONFIG_BYTES = 64
_ARCH_PRCTL, _REQUEST, _TILE_DATA = 158, 0x1023, 18  # Linux, x86-64
_VOID = ir.VoidType()
_FEATURES = ("amx-bf16", "amx-tile", "avx512f", "avx512bf16")  # kernels use them together


@cache
def has_amx() -> bool:
    """Whether this process may use tiles, and kernels are compiled for them."""
    return all(map(has_cpu_feature, _FEATURES)) and _may_use_tiles()


def _may_use_tiles() -> bool:
    """Asks Linux, which gives a thread memory for its tiles only then."""
    libc = ctypes.CDLL(None)
    return bool(libc.syscall(_ARCH_PRCTL, _REQUEST, _TILE_DATA) == 0)


def tile_config(rows: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """What `configure` takes, for tiles of so many rows and whole lines."""
    config = np.zeros(CONFIG_BYTES, np.uint8)
    config[0] = 1  # the palette
    config[16 : 16 + 2 * NUM_TILES : 2] = TILE_ROW_BYTES
    config[48 : 48 + NUM_TILES] = rows
    return config


@intrinsic
def configure_tiles(context: Any, config: Any) -> Any:
    """`config` is the address of a `tile_config`. All tiles are zero then."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        call(builder, "llvm.x86.ldtilecfg", _VOID, [_pointer(builder, arguments[0])])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def store_tile_config(context: Any, config: Any) -> Any:
    """Writes the thread's configuration to the address `config`: zeros after a release."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        call(builder, "llvm.x86.sttilecfg", _VOID, [_pointer(builder, arguments[0])])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def release_tiles(context: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        call(builder, "llvm.x86.tilerelease", _VOID, [])
        return context.get_dummy_value()

    return types.void(), codegen


def emit_tile_load(builder: Any, tile: int, address: Any, stride: Any) -> None:
    """Its rows are `stride` bytes apart."""
    arguments = [_number(tile), _pointer(builder, address), stride]
    call(builder, "llvm.x86.tileloadd64", _VOID, arguments)


def emit_tile_store(builder: Any, tile: int, address: Any, stride: Any) -> None:
    arguments = [_number(tile), _pointer(builder, address), stride]
    call(builder, "llvm.x86.tilestored64", _VOID, arguments)


def emit_tile_zero(builder: Any, tile: int) -> None:
    call(builder, "llvm.x86.tilezero", _VOID, [_number(tile)])


def emit_tile_dot(builder: Any, sums: int, x: int, weights: int) -> None:
    """See the module."""
    arguments = [_number(sums), _number(x), _number(weights)]
    call(builder, "llvm.x86.tdpbf16ps", _VOID, arguments)


def _number(tile: int) -> ir.Constant:
    return ir.Constant(I8, tile)


def _pointer(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, I8.as_pointer())
