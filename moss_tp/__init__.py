"""MOSS on tensor-parallel ranks, as a library.

Public names are imported lazily, so that `import moss_tp.errors` does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moss_tp.engine.outputs import RequestOutput
    from moss_tp.llm import LLM
    from moss_tp.sampling_params import SamplingParams

__all__ = ["LLM", "RequestOutput", "SamplingParams"]

_MODULES = {
    "LLM": "moss_tp.llm",
    "RequestOutput": "moss_tp.engine.outputs",
    "SamplingParams": "moss_tp.sampling_params",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
