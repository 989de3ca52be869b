"""Fills a model's parameters from a checkpoint, each rank reading only its shards.

It depends on no layer and no file format.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, cast

from torch import Tensor, nn

from moss_tp.errors import CheckpointError
from moss_tp.quant_config import SCALES
from moss_tp.weights.checkpoint import Checkpoint, StoredTensor
from moss_tp.weights.mapped import mapped_part
from moss_tp.weights.names import FLOATS, INT32, Wanted, check_tensors
from moss_tp.weights.shard import Shard, Sharded


class TakesRows(Protocol):
    """A module with one parameter, of which most rows may never be used."""

    def take_rows(self, rows: Tensor) -> None:
        """Takes the parameter's values as they are, which may be in a mapped file."""
        ...


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Fills every parameter of `model` from the model directory `path`.

    Raises CheckpointError, naming them, for files or tensors that are missing, left over or
    misshapen.
    """
    with Checkpoint.open(path) as checkpoint:
        fill_parameters(model, checkpoint)


def fill_parameters(model: nn.Module, checkpoint: Checkpoint) -> None:
    """`load_weights` from an open checkpoint."""
    check_parameters(model, checkpoint)
    fill_part(model, checkpoint, "")


def check_parameters(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Raises CheckpointError, naming them, for tensors that are missing, left over or misshapen."""
    parameters = dict(model.named_parameters())
    wanted = {
        name: Wanted(shard.shape, FLOATS if parameters[name].is_floating_point() else INT32)
        for name, shard in shards_by_name(model, parameters).items()
    }
    check_tensors(checkpoint.headers, wanted)


def fill_part(part: nn.Module, checkpoint: Checkpoint, at: str) -> None:
    """Fills the parameters of a model's part, which is `at` this path."""
    for path, module in part.named_modules(prefix=at):
        for name, parameter in module.named_parameters(path, recurse=False):
            # After the parameters before it: they may decide which part of this one is wanted.
            shard = shards_of(module, path).get(name) or Shard.whole(parameter.shape)
            stored, rows = checkpoint.tensors[name], None
            if hasattr(module, "take_rows"):
                rows = mapped_part(name, stored, shard, parameter.data)
            if rows is not None:
                cast(TakesRows, module).take_rows(rows)
            else:
                _fill(name, parameter.data, shard, stored)


def shards_by_name(model: nn.Module, parameters: Mapping[str, Tensor]) -> dict[str, Shard]:
    """Every parameter's shard, by the parameter's name in the checkpoint."""
    shards = {name: Shard.whole(parameter.shape) for name, parameter in parameters.items()}
    for path, module in model.named_modules():
        shards |= shards_of(module, path)
    return shards


def shards_of(module: nn.Module, path: str) -> dict[str, Shard]:
    """The shards that a module, at `path`, says itself, by the parameters' full names."""
    of_module = cast(Sharded, module).shards if hasattr(module, "shards") else {}
    return {f"{path}.{name}": shard for name, shard in of_module.items()}


def _fill(name: str, parameter: Tensor, shard: Shard, stored: StoredTensor) -> None:
    """Copies the shard's spans, converting to the parameter's dtype and device; zeros the rest."""
    dim, end = shard.dim, 0
    for start, stop in shard.spans:
        length = stop - start
        part = parameter.narrow(dim, end, length)
        part.copy_(stored.read(dim, start, stop))
        if name.endswith(f".{SCALES}") and not part.isfinite().all():
            raise CheckpointError(f"{name} in {stored.header.file} is not finite in fp16")
        end += length
    parameter.narrow(dim, end, parameter.shape[dim] - end).zero_()
