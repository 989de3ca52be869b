"""Triton comes with torch's CUDA builds, and not with its CPU builds."""

import importlib
from typing import Any

from moss_tp.errors import ConfigError


def import_triton() -> Any:
    """The module. Raises ConfigError where it is not installed."""
    try:
        return importlib.import_module("triton")
    except ImportError as error:
        raise ConfigError(f"the CUDA kernels need Triton: {error}") from error
