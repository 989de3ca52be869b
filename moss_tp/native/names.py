"""Names of compiled functions that say what they do.

Numba tells functions of one name apart by a number, which begins anew in every process. Compiled
code that is read from disk brings such names, and the linker takes two functions of one name for
the same: two closures of one factory, compiled in different processes, would be mixed up. So a
closure is named after all that it closes over.
"""

import hashlib
import re
import threading
from collections.abc import Callable, Mapping
from types import FunctionType, MethodType
from typing import Any, TypeVar

import numpy as np

F = TypeVar("F", bound=Callable[..., Any])
_lock = threading.Lock()  # several threads may compile

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def named_by_content(function: F) -> F:
    """`function`, with the digest of what it closes over in its name, if it is a closure.

    Raises TypeError for a value that has no description of its own.
    """
    with _lock:
        if function.__closure__ and "#" not in function.__qualname__:
            digest = hashlib.sha256(_content(function).encode()).hexdigest()[:12]
            function.__qualname__ = f"{function.__qualname__}#{digest}"
    return function


def _content(value: Any) -> str:
    for attribute in ("py_func", "_defn"):  # of a compiled function, and of an intrinsic
        value = getattr(value, attribute, value)
    if isinstance(value, FunctionType):
        own = [_content(cell.cell_contents) for cell in value.__closure__ or ()]
        own += [_content(default) for default in value.__defaults__ or ()]
        line = value.__code__.co_firstlineno
        return f"{value.__module__}.{value.__qualname__}:{line}{own}"
    if isinstance(value, tuple | list):
        return f"{type(value).__name__}{[_content(item) for item in value]}"
    if isinstance(value, Mapping):
        return str([(key, _content(item)) for key, item in value.items()])
    text = repr(value)
    if _ADDRESS.search(text) or isinstance(value, np.ndarray | MethodType):
        raise TypeError(f"{text} has no description of its own")
    return f"{type(value).__qualname__} {text}"
