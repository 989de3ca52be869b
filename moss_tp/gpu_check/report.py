"""Results as JSON that says nothing of the machine's folders."""

import site
import sys
from collections.abc import Sequence
from math import isfinite
from typing import Any


def plain(value: Any, folders: Sequence[str] = ()) -> Any:
    """`value` with paths relative to `folders` and to where Python's packages are, and with None
    for what JSON has no number for: infinity, nan."""
    if isinstance(value, dict):
        return {key: plain(inner, folders) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner, folders) for inner in value]
    if isinstance(value, float) and not isfinite(value):
        return None
    return _relative(value, folders) if isinstance(value, str) else value


def _relative(text: str, folders: Sequence[str]) -> str:
    own = (*folders, *sys.path, *site.getsitepackages(), sys.prefix, sys.base_prefix)
    for folder in sorted({folder for folder in own if len(folder) > 1}, key=len, reverse=True):
        text = text.replace(f"{folder.rstrip('/')}/", "")
    return text
