"""Which vector instructions weights are packed for."""

from moss_tp.native.amx import has_amx
from moss_tp.native.vectors import has_cpu_feature

_KINDS = {"avx512bf16": "AVX-512 BF16", "avx512f": "AVX-512"}


def vector_kind() -> str:
    """Of this machine: the best that kernels have panels for."""
    if has_amx():
        return "AMX"
    found = (kind for feature, kind in _KINDS.items() if has_cpu_feature(feature))
    return next(found, "AVX2")
