"""What kernels on the CPU are compiled for."""

import hashlib
from typing import Any

import llvmlite.binding
import numba
from numba.core.codegen import get_host_cpu_features

from moss_tp.native.amx import has_amx
from moss_tp.native.vectors import has_cpu_feature

_VECTOR_KINDS = {"avx512bf16": "AVX-512 BF16", "avx512f": "AVX-512"}


def instruction_set() -> str:
    """The processor's kind, as LLVM names it, and a digest of the features that kernels use."""
    config: Any = numba.config
    features: str = config.CPU_FEATURES
    if features is None:
        features = get_host_cpu_features()
    digest = hashlib.sha256(features.encode()).hexdigest()[:8]
    return f"{llvmlite.binding.get_host_cpu_name()} {digest}"


def vector_kind() -> str:
    """The best instructions of this machine that weights are packed for."""
    if has_amx():
        return "AMX"
    found = (kind for feature, kind in _VECTOR_KINDS.items() if has_cpu_feature(feature))
    return next(found, "AVX2")
