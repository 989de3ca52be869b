"""Counts what a step takes from torch's allocator."""

import sys
import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """`peak` is the most bytes that new tensors held at once. What kernels' references allocate
    does not count: kernels allocate nothing."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live: int = 0
        self.peak: int = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        before = {storage._cdata for storage in _storages((args, kwargs))}
        outputs = func(*args, **(kwargs or {}))
        if not _is_in_reference():
            for storage in _storages(outputs):
                if storage._cdata not in before | self._sizes.keys():
                    self._add(storage)
        return outputs

    def _add(self, storage: torch.UntypedStorage) -> None:
        self._sizes[storage._cdata] = storage.nbytes()
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._drop, storage._cdata)

    def _drop(self, key: int) -> None:
        self.live -= self._sizes.pop(key)


def _storages(tree: object) -> list[torch.UntypedStorage]:
    tensors = (leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor))
    return [tensor.untyped_storage() for tensor in tensors]


def _is_in_reference() -> bool:
    frame = sys._getframe(2)
    while frame.f_back is not None:
        if "reference" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False
