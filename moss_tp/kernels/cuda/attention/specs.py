"""The room's kernels as they are compiled ahead of time: what the wrappers launch."""

from collections.abc import Iterator, Mapping

import torch

from moss_tp.kernels.cuda.attention.kernels import attend_kernel, merge_kernel
from moss_tp.kernels.cuda.attention.store_kernel import store_kernel
from moss_tp.kernels.cuda.attention.variants import Variant
from moss_tp.kernels.cuda.runtime.jit import pointer
from moss_tp.kernels.cuda.runtime.spec import KernelSpec
from moss_tp.kernels.device_plan import LONG_ROWS, SHORT_ROWS

BLOCK_SIZE = 16  # the engine's default
MAX_ROTARY_DIM = 64  # MOSS's
INTS, FLOATS, NOTHING = "*i32", "*fp32", "constexpr"


def specs(dtype: torch.dtype, head_dim: int, cc: int) -> tuple[KernelSpec, ...]:
    """For a model of `dtype`, its cache in `dtype` and in int8, on capability `cc`."""
    found: list[KernelSpec] = []
    for cache_dtype in (dtype, torch.int8):
        variant = Variant(dtype, cache_dtype, head_dim, BLOCK_SIZE, cc)
        found += [_store(variant), *_attend(variant)]
    return (*found, _merge(Variant(dtype, dtype, head_dim, BLOCK_SIZE, cc)))


def _attend(variant: Variant) -> Iterator[KernelSpec]:
    for rows, is_split in ((SHORT_ROWS, True), (SHORT_ROWS, False), (LONG_ROWS, False)):
        signature = {
            "q_ptr": pointer(variant.dtype),
            **_cache(variant),
            "positions_ptr": INTS,
            "tables_ptr": INTS,
            "tiles_ptr": INTS,
            "out_ptr": NOTHING if is_split else pointer(variant.dtype),
            "partials_ptr": FLOATS if is_split else NOTHING,
            "stats_ptr": FLOATS if is_split else NOTHING,
            "q_stride": "i32",
            "out_stride": "i32",
            "table_width": "i32",
            "num_heads": "i32",
            "num_pieces": "i32",
            "places_apart": "i32",
            "scale": "fp32",
        }
        name = f"attend_{rows}{'_split' if is_split else ''}"
        constants = variant.attend(rows, is_split)
        options = variant.attend_options(rows, is_split)
        yield _spec(name, variant, attend_kernel, signature, constants, options)


def _merge(variant: Variant) -> KernelSpec:
    signature = {
        "positions_ptr": INTS,
        "tiles_ptr": INTS,
        "out_ptr": pointer(variant.dtype),
        "partials_ptr": FLOATS,
        "stats_ptr": FLOATS,
        "out_stride": "i32",
        "num_heads": "i32",
        "num_pieces": "i32",
        "places_apart": "i32",
    }
    constants, options = variant.merge(), variant.merge_options()
    return _spec("merge_pieces", variant, merge_kernel, signature, constants, options)


def _store(variant: Variant) -> KernelSpec:
    signature = {
        "qkv_ptr": pointer(variant.dtype),
        "cos_ptr": FLOATS,
        "sin_ptr": FLOATS,
        **_cache(variant),
        "positions_ptr": INTS,
        "slots_ptr": INTS,
        "qkv_stride": "i32",
        "num_heads": "i32",
    }
    constants = variant.store(min(MAX_ROTARY_DIM, variant.head_dim))
    options = variant.store_options()
    return _spec("store_kv", variant, store_kernel, signature, constants, options)


def _cache(variant: Variant) -> dict[str, str]:
    elements = pointer(variant.cache_dtype)
    scales = FLOATS if variant.is_int8 else NOTHING
    return {"k_ptr": elements, "v_ptr": elements, "k_scales": scales, "v_scales": scales}


def _spec(
    name: str,
    variant: Variant,
    function: object,
    signature: Mapping[str, str],
    constants: Mapping[str, object],
    options: Mapping[str, object],
) -> KernelSpec:
    """Aligned is all that Triton looks at when it launches: see each kernel's decorator."""
    left = dict(options)
    num_warps, num_stages = left.pop("num_warps"), left.pop("num_stages")
    assert isinstance(num_warps, int) and isinstance(num_stages, int)
    missing = {name: None for name, kind in signature.items() if kind == NOTHING}
    aligned = [
        name
        for name, kind in signature.items()
        if (kind.startswith("*") and kind != INTS) or name.endswith("_stride")
    ]
    return KernelSpec(
        name=f"{name}_{variant.cache_dtype}".replace("torch.", ""),
        function=function,
        signature={**signature, **dict.fromkeys(constants, NOTHING)},
        constants={**missing, **constants},
        aligned=tuple(aligned),
        num_warps=num_warps,
        num_stages=num_stages,
        options=left,
    )
