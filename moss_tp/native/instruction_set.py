"""What kernels on the CPU are compiled for."""

import hashlib
from typing import Any

import llvmlite.binding
import numba
from numba.core.codegen import get_host_cpu_features


def instruction_set() -> str:
    """The processor's kind, as LLVM names it, and a digest of the features that kernels use."""
    config: Any = numba.config
    features: str = config.CPU_FEATURES
    if features is None:
        features = get_host_cpu_features()
    digest = hashlib.sha256(features.encode()).hexdigest()[:8]
    return f"{llvmlite.binding.get_host_cpu_name()} {digest}"
