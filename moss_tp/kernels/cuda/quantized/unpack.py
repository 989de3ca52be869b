"""Levels of 4 or 8 bits to fp16 or bf16: `scale * (q - zero)`, rounded once.

A word of 16 bits holds inputs of as many planes, see `pack`. Two neighbouring words lie in one
register, and so do the values of a plane that come from them, as matrix instructions want them.

    (word & 0x000f000f) | 0x64006400    1024 + q in fp16: no conversion
    + -(1024 + zero)                    q - zero, exact
    (word & 0x00f000f0) | 0x64006400    1024 + 16 q; times 1/16, + -(64 + zero): the same
    * scale                             rounded as a product in fp32 would be

bf16 has no room for the scale's digits: there the product is taken in fp32.
"""

import triton.language as tl

from moss_tp.kernels.cuda.runtime.jit import jit

_LEVELS_4 = tl.constexpr("""{
    .reg .b32 other, magic, sixteenth, shift, near;
    mov.b32 magic, 0x64006400;
    mov.b32 sixteenth, 0x2c002c00;
    mov.b32 shift, 0x63806380;
    add.rn.f16x2 near, $7, shift;
    shr.u32 other, $4, 8;
    lop3.b32 $0, $4, 0x000f000f, magic, 0xea;
    lop3.b32 $1, $4, 0x00f000f0, magic, 0xea;
    lop3.b32 $2, other, 0x000f000f, magic, 0xea;
    lop3.b32 $3, other, 0x00f000f0, magic, 0xea;
    add.rn.f16x2 $0, $0, $7;
    fma.rn.f16x2 $1, $1, sixteenth, near;
    add.rn.f16x2 $2, $2, $7;
    fma.rn.f16x2 $3, $3, sixteenth, near;
""")
_LEVELS_8 = tl.constexpr("""{
    .reg .b32 other, magic;
    mov.b32 magic, 0x64006400;
    shr.u32 other, $2, 8;
    lop3.b32 $0, $2, 0x00ff00ff, magic, 0xea;
    lop3.b32 $1, other, 0x00ff00ff, magic, 0xea;
    add.rn.f16x2 $0, $0, $5;
    add.rn.f16x2 $1, $1, $5;
""")
_WIDE = """
    mov.b32 {{low, high}}, ${i};
    cvt.f32.f16 first, low;
    cvt.f32.f16 second, high;
    mul.rn.f32 first, first, ${scale};
    mul.rn.f32 second, second, ${scale};
    cvt.rn.bf16x2.f32 ${i}, second, first;
"""
_WIDE_REGISTERS = ".reg .b16 low, high; .reg .f32 first, second;\n"
_SCALED = "    mul.rn.f16x2 ${i}, ${i}, ${scale};\n"


def _text(levels: str, planes: int, multiply: str, registers: str = "") -> str:
    products = (multiply.format(i=i, scale=planes + 1) for i in range(planes))
    return levels.replace("{", "{" + registers, 1) + "".join(products) + "}"


_FP16_4 = tl.constexpr(_text(_LEVELS_4.value, 4, _SCALED))
_FP16_8 = tl.constexpr(_text(_LEVELS_8.value, 2, _SCALED))
_BF16_4 = tl.constexpr(_text(_LEVELS_4.value, 4, _WIDE, _WIDE_REGISTERS))
_BF16_8 = tl.constexpr(_text(_LEVELS_8.value, 2, _WIDE, _WIDE_REGISTERS))


@jit
def _twice(half: tl.tensor) -> tl.tensor:
    """Of the lower 16 bits."""
    low = half & 0xFFFF
    return low | (low << 16)


@jit
def _unpack_4(words: tl.tensor, scales: tl.tensor, DTYPE: tl.constexpr) -> tl.tensor:
    """Four tensors like `words (outputs, inputs)` int16, in DTYPE, of scales (outputs, 1) int32."""
    words, scales = tl.broadcast(words, scales)
    zero = _twice(scales >> 16)
    if tl.float16 == DTYPE:
        scale = _twice(scales)
        out = tl.inline_asm_elementwise(
            _FP16_4, "=&r,=&r,=&r,=&r,r,r,r,r,r", [words, scale, zero],
            dtype=(tl.float16, tl.float16, tl.float16, tl.float16), is_pure=True, pack=2,
        )  # fmt: skip
    else:
        wide = scales.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
        out = tl.inline_asm_elementwise(
            _BF16_4, "=&r,=&r,=&r,=&r,r,f,f,r,r", [words, wide, zero],
            dtype=(tl.bfloat16, tl.bfloat16, tl.bfloat16, tl.bfloat16), is_pure=True, pack=2,
        )  # fmt: skip
    return out


@jit
def _unpack_8(words: tl.tensor, scales: tl.tensor, DTYPE: tl.constexpr) -> tl.tensor:
    """Two tensors, see `_unpack_4`."""
    words, scales = tl.broadcast(words, scales)
    zero = _twice(scales >> 16)
    if tl.float16 == DTYPE:
        scale = _twice(scales)
        out = tl.inline_asm_elementwise(
            _FP16_8, "=&r,=&r,r,r,r,r,r", [words, scale, zero],
            dtype=(tl.float16, tl.float16), is_pure=True, pack=2,
        )  # fmt: skip
    else:
        wide = scales.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
        out = tl.inline_asm_elementwise(
            _BF16_8, "=&r,=&r,r,f,f,r,r", [words, wide, zero],
            dtype=(tl.bfloat16, tl.bfloat16), is_pure=True, pack=2,
        )  # fmt: skip
    return out


@jit
def plane_of_4(
    words: tl.tensor,
    scales: tl.tensor,
    plane: tl.constexpr,
    DTYPE: tl.constexpr,
    IS_INTERPRETED: tl.constexpr,
) -> tl.tensor:
    """One plane of `words (outputs, inputs)` int16, in DTYPE, by scales (outputs, 1) int32. What
    several calls unpack by the same scales is unpacked once."""
    if IS_INTERPRETED:
        value = _plain(words, scales, plane, 4, DTYPE)
    else:
        value = _unpack_4(words, scales, DTYPE)[plane]
    return value


@jit
def plane_of_8(
    words: tl.tensor,
    scales: tl.tensor,
    plane: tl.constexpr,
    DTYPE: tl.constexpr,
    IS_INTERPRETED: tl.constexpr,
) -> tl.tensor:
    """See `plane_of_4`."""
    if IS_INTERPRETED:
        value = _plain(words, scales, plane, 8, DTYPE)
    else:
        value = _unpack_8(words, scales, DTYPE)[plane]
    return value


@jit
def _plain(
    words: tl.tensor, scales: tl.tensor, plane: tl.constexpr, BITS: tl.constexpr,
    DTYPE: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """One plane in fp32, without instructions of a GPU."""
    q = (words.to(tl.int32) >> (BITS * plane)) & ((1 << BITS) - 1)
    scale = scales.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
    zero = (scales >> 16).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32) + 1024.0
    value = (q.to(tl.float32) + zero) * scale
    if tl.float16 == DTYPE:
        value = value.to(tl.float16).to(tl.float32)
    else:  # the interpreter does not round to bf16, it cuts off
        digits = value.to(tl.int32, bitcast=True)
        digits += 0x7FFF + ((digits >> 16) & 1)
        value = (digits & -65536).to(tl.float32, bitcast=True)
    return value
