"""Fills a model's parameters from a checkpoint, each rank reading only its shards.

It depends on no layer and no file format.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from torch import Tensor, nn

from moss_tp.weights.checkpoint import Checkpoint, StoredTensor
from moss_tp.weights.names import check_tensors
from moss_tp.weights.shard import Shard, Sharded


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Fills every parameter of `model` from the model directory `path`.

    Raises CheckpointError, naming them, for files or tensors that are missing, left over or
    misshapen.
    """
    with Checkpoint.open(path) as checkpoint:
        fill_parameters(model, checkpoint)


def fill_parameters(model: nn.Module, checkpoint: Checkpoint) -> None:
    """`load_weights` from an open checkpoint."""
    parameters = dict(model.named_parameters())
    shards = shards_by_name(model, parameters)
    check_tensors(checkpoint.headers, {name: shard.shape for name, shard in shards.items()})
    for name, parameter in parameters.items():
        _fill(parameter.data, shards[name], checkpoint.tensors[name])


def shards_by_name(model: nn.Module, parameters: Mapping[str, Tensor]) -> dict[str, Shard]:
    """Every parameter's shard, by the parameter's name in the checkpoint."""
    shards = {name: Shard.whole(parameter.shape) for name, parameter in parameters.items()}
    for path, module in model.named_modules():
        if hasattr(module, "shards"):
            of_module = cast(Sharded, module).shards
            shards |= {f"{path}.{name}": shard for name, shard in of_module.items()}
    return shards


def _fill(parameter: Tensor, shard: Shard, stored: StoredTensor) -> None:
    """Copies the shard's spans, converting to the parameter's dtype and device; zeros the rest."""
    dim, end = shard.dim, 0
    for start, stop in shard.spans:
        length = stop - start
        parameter.narrow(dim, end, length).copy_(stored.read(dim, start, stop))
        end += length
    parameter.narrow(dim, end, parameter.shape[dim] - end).zero_()
