"""Random weights instead of a checkpoint's, to measure speed and memory without one.

Values are normal and scaled so that activations keep their size from layer to layer and logits
differ: finite in every dtype, at any shape. A seed gives one model for a number of ranks and a kind
of device; it is not promised to be the same model for another, since each rank makes only its own
shard, on its device.
"""

import zlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from moss_tp.weights.load import shards_by_name
from moss_tp.weights.shard import Shard

SEED = 0
# Parameters of the host are made in pieces on the device, which is faster by far.
_PIECE = 1 << 24
_VECTOR_STD = 0.1  # of biases, and of a norm's weights around 1


@torch.inference_mode()
def make_dummy_weights(model: nn.Module, rank: int, device: torch.device, seed: int = SEED) -> None:
    """Fills every parameter of `model`, in place, by generators on `device`.

    Parameters that every rank holds whole have the same values on all of them.
    """
    parameters = dict(model.named_parameters())
    for name, shard in shards_by_name(model, parameters).items():
        is_whole = shard == Shard.whole(shard.shape)
        numbers = torch.Generator(device)
        numbers.manual_seed(zlib.crc32(f"{seed} {name} {0 if is_whole else rank}".encode()))
        _fill(parameters[name].data, shard, _std(name, shard), numbers)
        if _is_norm(name):
            parameters[name].data.add_(1)


def _fill(parameter: Tensor, shard: Shard, std: float, numbers: torch.Generator) -> None:
    """Normal values in the shard, zeros in the padding behind it, as after loading."""
    length = shard.local_shape[shard.dim]
    for piece in _pieces(parameter.narrow(shard.dim, 0, length)):
        if piece.device == numbers.device:
            piece.normal_(0, std, generator=numbers)
        else:
            made = torch.empty(piece.shape, dtype=piece.dtype, device=numbers.device)
            piece.copy_(made.normal_(0, std, generator=numbers))
    parameter.narrow(shard.dim, length, parameter.shape[shard.dim] - length).zero_()


def _pieces(x: Tensor) -> Iterator[Tensor]:
    """`x` as views of about _PIECE elements."""
    rows = max(1, _PIECE // max(1, x.stride(0)))
    return (x[start : start + rows] for start in range(0, x.shape[0], rows))


def _std(name: str, shard: Shard) -> float:
    """1 over the root of a matrix's inputs; an embedding's rows are themselves activations."""
    if len(shard.shape) < 2:
        return _VECTOR_STD
    return 1.0 if _is_embedding(name) else float(shard.shape[1]) ** -0.5


def _is_norm(name: str) -> bool:
    return name.endswith((".ln_1.weight", ".ln_f.weight"))


def _is_embedding(name: str) -> bool:
    return name.endswith(".wte.weight")
