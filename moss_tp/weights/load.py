"""Fills a model's parameters from a checkpoint, each rank reading only its shards.

It is strict: a name that is missing, left over or has another shape is an error that says which.
It depends on no layer and no file format.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from torch import Tensor, nn

from moss_tp.errors import CheckpointError
from moss_tp.weights.checkpoint import Checkpoint, StoredTensor
from moss_tp.weights.shard import Shard, Sharded

# Buffers that published CodeGen checkpoints carry beside the parameters.
_BUFFERS = re.compile(r"\.attn\.(causal_mask|masked_bias|bias)$")
_MAX_NAMED = 5


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
    shards = _shards_by_name(model, parameters)
    _check_names(checkpoint.tensors, shards)
    for name, parameter in parameters.items():
        _fill(parameter.data, shards[name], checkpoint.tensors[name])


def _shards_by_name(model: nn.Module, parameters: Mapping[str, Tensor]) -> dict[str, Shard]:
    """Every parameter's shard, by the parameter's name in the checkpoint."""
    shards = {name: Shard.whole(parameter.shape) for name, parameter in parameters.items()}
    for path, module in model.named_modules():
        if hasattr(module, "shards"):
            of_module = cast(Sharded, module).shards
            shards |= {f"{path}.{name}": shard for name, shard in of_module.items()}
    return shards


def _check_names(tensors: Mapping[str, StoredTensor], shards: Mapping[str, Shard]) -> None:
    """Raises CheckpointError unless `tensors` are exactly those that `shards` are parts of."""
    found = {name for name in tensors if not _BUFFERS.search(name)}
    misshapen = (
        f"{name} {tensors[name].shape} instead of {shard.shape}"
        for name, shard in shards.items()
        if name in found and tensors[name].shape != shard.shape
    )
    problems = {
        "missing": sorted(shards.keys() - found),
        "left over": sorted(found - shards.keys()),
        "misshapen": sorted(misshapen),
    }
    text = "; ".join(
        f"{problem}: {_listing(names)}" for problem, names in problems.items() if names
    )
    if text:
        raise CheckpointError(f"the checkpoint's tensors are not the model's. {text}")


def _listing(names: Sequence[str]) -> str:
    num_more = len(names) - _MAX_NAMED
    return ", ".join(names[:_MAX_NAMED]) + (f" and {num_more} more" if num_more > 0 else "")


def _fill(parameter: Tensor, shard: Shard, stored: StoredTensor) -> None:
    """Copies the shard's spans, converting to the parameter's dtype and device; zeros the rest."""
    dim, end = shard.dim, 0
    for start, stop in shard.spans:
        length = stop - start
        parameter.narrow(dim, end, length).copy_(stored.read(dim, start, stop))
        end += length
    parameter.narrow(dim, end, parameter.shape[dim] - end).zero_()
