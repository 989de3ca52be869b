"""A rank's part of a tensor where its file has it, without a copy: only what is touched is read."""

import json
from pathlib import Path

from torch import Tensor

from moss_tp.native.huge_pages import map_file
from moss_tp.weights.checkpoint import DTYPES, SAFETENSORS, StoredTensor
from moss_tp.weights.shard import Shard

_LENGTH_BYTES = 8  # of a safetensors file's header, which has the tensors' places behind it


def mapped_part(name: str, stored: StoredTensor, shard: Shard, like: Tensor) -> Tensor | None:
    """The shard of the tensor `name`, in the shape and dtype of `like`. None where a copy is
    needed: on another device, of another dtype, with padding, not in one piece."""
    if like.device.type != "cpu" or shard.local_shape != like.shape or not like.numel():
        return None
    if shard.dim != 0 or len(shard.spans) != 1 or stored.header.file.suffix != SAFETENSORS:
        return None
    if stored.header.dtype != DTYPES.get(str(like.dtype).removeprefix("torch.")):
        return None
    start = _place(stored.header.file, name) + shard.spans[0][0] * like[0].nbytes
    if start % like.itemsize:
        return None
    part = map_file(stored.header.file, start, start + like.nbytes)
    return part.view(like.dtype).view(like.shape)


def _place(file: Path, name: str) -> int:
    """Where a tensor begins in a safetensors file."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(_LENGTH_BYTES), "little")
        begin: int = json.loads(opened.read(length))[name]["data_offsets"][0]
    return _LENGTH_BYTES + length + begin
