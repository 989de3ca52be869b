"""Reads a checkpoint's tensors into a model, strictly, each rank only its own slices.

Owns the file formats (safetensors, and `pytorch_model*.bin` unpickled with weights_only) and the
`Shard` by which a layer says what part of a stored tensor is its own. It knows no layer: a name
that is missing, left over or of another shape is an error that says which.
"""

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from moss_tp.errors import CheckpointError

# Constants that published CodeGen checkpoints carry beside the parameters.
_NOT_PARAMETERS = re.compile(r"\.attn\.(causal_mask|masked_bias|bias)$")
_FORMATS = (
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
_MAX_NAMED = 5


@dataclass(frozen=True)
class Shard:
    """One rank's part of a stored tensor of `shape`: the `spans` (start, stop) along `dim`, one
    after the other. Rows of the parameter beyond them are padding and become zero."""

    shape: tuple[int, ...]
    dim: int
    spans: tuple[tuple[int, int], ...]

    @classmethod
    def whole(cls, shape: Sequence[int]) -> Self:
        return cls(tuple(shape), 0, ((0, shape[0]),))

    @classmethod
    def part(cls, shape: Sequence[int], dim: int, rank: int, size: int) -> Self:
        """The `rank`th of `size` equal parts along `dim`."""
        length = shape[dim] // size
        return cls(tuple(shape), dim, ((rank * length, (rank + 1) * length),))


class Sharded(Protocol):
    """A module that does not hold whole tensors: its parameters' shards, by attribute."""

    @property
    def shards(self) -> Mapping[str, Shard]: ...


class StoredTensor(Protocol):
    """A tensor in a file, of which only what is indexed is read."""

    def __getitem__(self, index: Any) -> Tensor: ...


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Fills every parameter of `model` from the checkpoint in `path`.

    Raises CheckpointError, naming them, for files or tensors that are missing, left over or
    misshapen.
    """
    with Checkpoint.open(path) as checkpoint:
        fill_parameters(model, checkpoint)


def fill_parameters(model: nn.Module, checkpoint: "Checkpoint") -> None:
    """`load_weights` from an open checkpoint."""
    parameters = dict(model.named_parameters())
    shards = _shards(model, parameters)
    _check_names(checkpoint, shards)
    for name, parameter in parameters.items():
        _fill(parameter.data, shards[name], checkpoint.stored(name))


class Checkpoint:
    """The tensors of a model directory, by name; nothing is read before it is asked for."""

    def __init__(self, shapes: dict[str, tuple[int, ...]], stored: dict[str, StoredTensor]) -> None:
        self.shapes = shapes
        self._stored = stored
        self._stack = ExitStack()

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Opens the directory's shards. Raises CheckpointError."""
        checkpoint = cls({}, {})
        try:
            for file in _shard_files(Path(path)):
                checkpoint._add(file)
        except BaseException:
            checkpoint._stack.close()
            raise
        return checkpoint

    def stored(self, name: str) -> StoredTensor:
        return self._stored[name]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stored.clear()
        self._stack.close()

    def _add(self, file: Path) -> None:
        try:
            tensors = self._safetensors(file) if file.suffix == ".safetensors" else _bin(file)
        except FileNotFoundError as error:
            raise CheckpointError(f"the shard {file} is missing") from error
        # torch.load raises half a dozen unrelated types for a broken file.
        except Exception as error:
            raise CheckpointError(f"{file} cannot be read: {error}") from error
        for name, (shape, stored) in tensors.items():
            if name in self.shapes:
                raise CheckpointError(f"{name} is in more than one shard, the last being {file}")
            self.shapes[name], self._stored[name] = shape, stored

    def _safetensors(self, file: Path) -> dict[str, tuple[tuple[int, ...], StoredTensor]]:
        if not file.exists():
            raise FileNotFoundError(file)
        opened = self._stack.enter_context(safe_open(file, framework="pt"))
        slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
        return {name: (tuple(part.get_shape()), part) for name, part in slices.items()}


def _bin(file: Path) -> dict[str, tuple[tuple[int, ...], StoredTensor]]:
    # mmap: the pages of other ranks' slices are never read.
    tensors: dict[str, Tensor] = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    return {name: (tuple(tensor.shape), tensor) for name, tensor in tensors.items()}


def _shard_files(directory: Path) -> list[Path]:
    """The files that hold the checkpoint's tensors; safetensors where there are both."""
    for single, index in _FORMATS:
        if (directory / index).exists():
            return [directory / name for name in sorted(set(_weight_map(directory / index)))]
        if (directory / single).exists():
            return [directory / single]
    names = ", ".join(name for pair in _FORMATS for name in pair)
    raise CheckpointError(f"there are no weights in {directory}: none of {names}")


def _weight_map(index: Path) -> list[str]:
    try:
        files = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} has no weight_map: {error}") from error
    return [str(name) for name in files]


def _shards(model: nn.Module, parameters: Mapping[str, Tensor]) -> dict[str, Shard]:
    """What every parameter takes from the checkpoint, by its name there."""
    shards = {name: Shard.whole(parameter.shape) for name, parameter in parameters.items()}
    for path, module in model.named_modules():
        if hasattr(module, "shards"):
            own = cast(Sharded, module).shards
            shards |= {f"{path}.{name}": shard for name, shard in own.items()}
    return shards


def _check_names(checkpoint: Checkpoint, shards: Mapping[str, Shard]) -> None:
    found = {name for name in checkpoint.shapes if not _NOT_PARAMETERS.search(name)}
    misshapen = (
        f"{name} {checkpoint.shapes[name]} instead of {shard.shape}"
        for name, shard in shards.items()
        if name in found and checkpoint.shapes[name] != shard.shape
    )
    problems = {
        "missing": sorted(shards.keys() - found),
        "left over": sorted(found - shards.keys()),
        "misshapen": sorted(misshapen),
    }
    text = "; ".join(f"{kind}: {_listing(names)}" for kind, names in problems.items() if names)
    if text:
        raise CheckpointError(f"the checkpoint's tensors are not the model's. {text}")


def _listing(names: Sequence[str]) -> str:
    more = len(names) - _MAX_NAMED
    return ", ".join(names[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def _fill(parameter: Tensor, shard: Shard, stored: StoredTensor) -> None:
    """Copies the shard's spans, converting to the parameter's dtype and device."""
    start = 0
    for low, high in shard.spans:
        index = (slice(None),) * shard.dim + (slice(low, high),)
        try:
            part = stored[index]
        except SafetensorError as error:
            raise CheckpointError(f"a shard is broken: {error}") from error
        parameter.narrow(shard.dim, start, high - low).copy_(part)
        start += high - low
    parameter.narrow(shard.dim, start, parameter.shape[shard.dim] - start).zero_()
