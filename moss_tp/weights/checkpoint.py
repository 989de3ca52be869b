"""The tensors of a model directory, by their published names, read lazily.

safetensors are mapped into memory, and `pytorch_model*.bin` too, unpickled with `weights_only`. It
is independent of the model's code. Headers are checked without torch, which is slow to import.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, TypeVar

from safetensors import SafetensorError, safe_open

from moss_tp.config import ModelConfig
from moss_tp.errors import CheckpointError
from moss_tp.quant_config import G_IDX
from moss_tp.weights.files import check_archive, weight_files
from moss_tp.weights.names import (
    Header,
    check_tensors,
    config_with,
    published_tensors,
    stored_config,
)
from moss_tp.weights.ranks.manifest import Manifest, is_sharded

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

SAFETENSORS = ".safetensors"
# safetensors' names of dtypes, by torch's.
DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int32": "I32",
    "int64": "I64",
}


class LazyTensor(Protocol):
    """A tensor in a file: indexing it reads the indexed part only, as torch's or numpy's."""

    def __getitem__(self, index: Any) -> Any: ...


class StoredTensor(NamedTuple):
    """A tensor of the checkpoint: its header, and its values, which are not read yet."""

    header: Header
    values: LazyTensor

    def read(self, dim: int, start: int, stop: int) -> "Tensor":
        """The slice `start:stop` along `dim`. Raises CheckpointError."""
        try:
            part: Tensor = self.values[(slice(None),) * dim + (slice(start, stop),)]
            return part
        except SafetensorError as error:
            raise CheckpointError(f"{self.header.file} is broken: {error}") from error


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
            for file in weight_files(Path(path)):
                _add(tensors, _open(file, files), file)
            return cls(tensors, files.pop_all())

    @property
    def headers(self) -> dict[str, Header]:
        """The header of each tensor by name."""
        return {name: stored.header for name, stored in self.tensors.items()}

    def check(self, config: ModelConfig) -> ModelConfig:
        """The config of these very tensors, see `stored_config`. Raises CheckpointError unless they
        are those of the model that `config` says."""
        return _check(self.tensors, config)

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


def check_headers(directory: Path, config: ModelConfig) -> ModelConfig:
    """Checks a model directory's weights against its config within a second: their files, and
    names, shapes and dtypes where the format has headers (`.bin` files have none), and which
    groups a quantized layer's inputs belong to. Returns the config of these very tensors, see
    `stored_config`; `config` itself where there are no headers.

    Raises CheckpointError, naming file and tensor.
    """
    if is_sharded(directory):
        manifest = Manifest.read(directory)
        return config_with(config, manifest.dense, manifest.biased)
    tensors: dict[str, StoredTensor] = {}
    with ExitStack() as opened:
        files = weight_files(directory)
        for file in files:
            _add(tensors, _peek(file, opened), file)
        has_headers = all(file.suffix == SAFETENSORS for file in files)
        return _check(tensors, config) if has_headers else config


def _check(tensors: Mapping[str, StoredTensor], config: ModelConfig) -> ModelConfig:
    config = stored_config(config, tensors)
    check_tensors({name: t.header for name, t in tensors.items()}, published_tensors(config))
    for layer, (_, inputs) in config.linear_layers.items():
        if form := config.format_of(layer):
            name = f"{layer}.{G_IDX}"
            _check_groups(name, tensors[name], form.num_groups(inputs))
    return config


def _check_groups(name: str, stored: StoredTensor, num_groups: int) -> None:
    """Raises CheckpointError for an input in a group that the layer does not have."""
    (inputs,) = stored.header.shape
    groups = stored.read(0, 0, inputs)
    low, high = int(groups.min()), int(groups.max())
    if low < 0 or high >= num_groups:
        raise CheckpointError(
            f"{name} in {stored.header.file} has groups from {low} to {high}, but the layer's are "
            f"0 to {num_groups - 1}: another group size than the config's"
        )


def _add(tensors: dict[str, T], more: Mapping[str, T], file: Path) -> None:
    if both := tensors.keys() & more.keys():
        raise CheckpointError(f"{min(both)} is in more than one file, the last being {file}")
    tensors.update(more)


def _peek(file: Path, files: ExitStack) -> dict[str, StoredTensor]:
    """The tensors of one file by numpy; none of an archive, which needs torch."""
    if file.suffix != SAFETENSORS:
        check_archive(file)
        return {}
    return _stored_slices(file, "np", files)


def _open(file: Path, files: ExitStack) -> dict[str, StoredTensor]:
    """The tensors of one file, which stays open until `files` is closed."""
    if file.suffix != SAFETENSORS:
        check_archive(file)
        return _open_archive(file)
    return _stored_slices(file, "pt", files)


def _stored_slices(file: Path, framework: str, files: ExitStack) -> dict[str, StoredTensor]:
    slices = _slices(file, framework, files)
    return {name: StoredTensor(_header(part, file), part) for name, part in slices.items()}


def _slices(file: Path, framework: str, files: ExitStack) -> dict[str, Any]:
    try:
        opened = files.enter_context(safe_open(file, framework=framework))
        return {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error


def _header(part: Any, file: Path) -> Header:
    return Header(tuple(part.get_shape()), part.get_dtype(), file)


def _open_archive(file: Path) -> dict[str, StoredTensor]:
    import torch

    try:
        # mmap: pages that hold only other ranks' shards are never read.
        tensors = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    # torch.load raises half a dozen unrelated types for a broken file.
    except Exception as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
    if not isinstance(tensors, dict) or not all(map(torch.is_tensor, tensors.values())):
        raise CheckpointError(f"{file} does not hold tensors by name")
    return {name: _stored(tensor, file) for name, tensor in tensors.items()}


def _stored(tensor: "Tensor", file: Path) -> StoredTensor:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return StoredTensor(Header(tuple(tensor.shape), DTYPES.get(dtype, dtype), file), tensor)
