"""The tensors of a model directory, by their published names, read lazily.

Owns the file formats: safetensors, and `pytorch_model*.bin` unpickled with `weights_only`; in one
file, or in several with an index. It is independent of the model's code.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from moss_tp.errors import CheckpointError
from moss_tp.json_file import read_json

_FORMATS = (
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)


class LazyTensor(Protocol):
    """A tensor in a file: indexing it reads the indexed part only."""

    def __getitem__(self, index: Any) -> Tensor: ...


class StoredTensor(NamedTuple):
    """A tensor of the checkpoint: its shape, and its values, which are not read yet."""

    shape: tuple[int, ...]
    values: LazyTensor

    def read(self, dim: int, start: int, stop: int) -> Tensor:
        """The slice `start:stop` along `dim`. Raises CheckpointError."""
        try:
            return self.values[(slice(None),) * dim + (slice(start, stop),)]
        except SafetensorError as error:
            raise CheckpointError(f"a checkpoint file is broken: {error}") from error


class Checkpoint:
    """A model directory's `tensors` by name. A context manager: `values` can be read inside."""

    def __init__(self, tensors: Mapping[str, StoredTensor], files: ExitStack | None = None) -> None:
        self.tensors = tensors
        self._files = files or ExitStack()

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Opens the directory's weight files.

        Raises CheckpointError, naming the file, when one is missing or cannot be read.
        """
        tensors: dict[str, StoredTensor] = {}
        with ExitStack() as files:
            for file in _weight_files(Path(path)):
                for name, stored in _open(file, files).items():
                    if name in tensors:
                        raise CheckpointError(
                            f"{name} is in more than one file, the last being {file}"
                        )
                    tensors[name] = stored
            return cls(tensors, files.pop_all())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.tensors = {}
        self._files.close()


def _open(file: Path, files: ExitStack) -> dict[str, StoredTensor]:
    """The tensors of one file, which stays open until `files` is closed."""
    if not file.exists():
        raise CheckpointError(f"the weight file {file} is missing")
    try:
        return _open_safetensors(file, files) if file.suffix == ".safetensors" else _open_bin(file)
    # torch.load raises half a dozen unrelated types for a broken file.
    except Exception as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error


def _open_safetensors(file: Path, files: ExitStack) -> dict[str, StoredTensor]:
    opened = files.enter_context(safe_open(file, framework="pt"))
    slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
    return {name: StoredTensor(tuple(part.get_shape()), part) for name, part in slices.items()}


def _open_bin(file: Path) -> dict[str, StoredTensor]:
    # mmap: pages that hold only other ranks' shards are never read.
    tensors: dict[str, Tensor] = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    return {name: StoredTensor(tuple(tensor.shape), tensor) for name, tensor in tensors.items()}


def _weight_files(directory: Path) -> list[Path]:
    """The files that hold the checkpoint's tensors; safetensors where both formats are there."""
    for single, index in _FORMATS:
        if (directory / index).exists():
            return [directory / name for name in sorted(set(_indexed_files(directory / index)))]
        if (directory / single).exists():
            return [directory / single]
    names = ", ".join(name for pair in _FORMATS for name in pair)
    raise CheckpointError(f"there are no weights in {directory}: none of {names}")


def _indexed_files(index: Path) -> list[str]:
    try:
        files = read_json(index)["weight_map"].values()
    except (CheckpointError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{index} has no weight_map: {error}") from error
    return [str(name) for name in files]
