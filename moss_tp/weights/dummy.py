"""Random weights instead of a checkpoint's, to measure speed and memory without one.

Values are normal and scaled so that activations keep their size from layer to layer and logits
differ: finite in every dtype, at any shape. A seed gives one model for a number of ranks and a kind
of device; it is not promised to be the same model for another, since each rank makes only its own
shard, on its device.
"""

import zlib
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from moss_tp.quant_config import BIAS
from moss_tp.weights.load import shards_by_name
from moss_tp.weights.random_values import fill_normal
from moss_tp.weights.shard import Shard

SEED = 0
_VECTOR_STD = 0.1  # of biases, and of a norm's weights around 1


class FillsItself(Protocol):
    """A module whose parameters, except for `bias`, are not normal values."""

    def fill_randomly(self, numbers: torch.Generator, common: torch.Generator) -> None:
        """By `numbers`, of the device, or where all ranks need the same values by `common`, which
        is of the host."""
        ...


@torch.inference_mode()
def make_dummy_weights(model: nn.Module, rank: int, device: torch.device, seed: int = SEED) -> None:
    """Fills every parameter of `model`, in place, by generators on `device`.

    Parameters that every rank holds whole have the same values on all of them.
    """
    parameters = dict(model.named_parameters())
    shards = shards_by_name(model, parameters)
    for path, module in model.named_modules():
        if hasattr(module, "fill_randomly"):
            numbers = _generator(device, f"{seed} {path} {rank}")
            common = _generator(torch.device("cpu"), f"{seed} {path}")
            cast(FillsItself, module).fill_randomly(numbers, common)
            for name, _ in module.named_parameters(path, recurse=False):
                if not name.endswith(f".{BIAS}"):
                    del parameters[name]
    for name, parameter in parameters.items():
        shard = shards[name]
        is_whole = shard == Shard.whole(shard.shape)
        numbers = _generator(device, f"{seed} {name} {0 if is_whole else rank}")
        _fill(parameter.data, shard, _std(name, shard), numbers)
        if _is_norm(name):
            parameter.data.add_(1)


def _generator(device: torch.device, text: str) -> torch.Generator:
    return torch.Generator(device).manual_seed(zlib.crc32(text.encode()))


def _fill(parameter: Tensor, shard: Shard, std: float, numbers: torch.Generator) -> None:
    """Normal values in the shard, zeros in the padding behind it, as after loading."""
    length = shard.local_shape[shard.dim]
    fill_normal(parameter.narrow(shard.dim, 0, length), std, numbers)
    parameter.narrow(shard.dim, length, parameter.shape[shard.dim] - length).zero_()


def _std(name: str, shard: Shard) -> float:
    """1 over the root of a matrix's inputs; an embedding's rows are themselves activations."""
    if len(shard.shape) < 2:
        return _VECTOR_STD
    return 1.0 if _is_embedding(name) else float(shard.shape[1]) ** -0.5


def _is_norm(name: str) -> bool:
    return name.endswith((".ln_1.weight", ".ln_f.weight"))


def _is_embedding(name: str) -> bool:
    return name.endswith(".wte.weight")
