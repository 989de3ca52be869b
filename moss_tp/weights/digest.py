"""A digest of a model's weights that takes milliseconds, however large they are.

It tells models apart: by their config, the headers and sizes of their files, and a sample of their
bytes, in which every kind of training leaves its trace. It does not find a flipped bit.
"""

import hashlib
from pathlib import Path

from moss_tp import quant_fields
from moss_tp.weights.files import weight_files
from moss_tp.weights.ranks.manifest import Manifest, is_sharded

_HEADER_BYTES = 8 * 1024 * 1024  # a safetensors file begins with its header
_NUM_SAMPLES, _SAMPLE_BYTES = 64, 4096
_CONFIG = "config.json"


def weights_digest(directory: Path, *, has_weights: bool = True) -> str:
    """Hex. Without weights, of the config alone; of a sharded directory,
    its source's. Raises CheckpointError for a missing file."""
    if has_weights and is_sharded(directory):
        return Manifest.read(directory).source_digest
    digest = hashlib.sha256((directory / _CONFIG).read_bytes())
    if (quantizer := directory / quant_fields.FILE).exists():
        digest.update(quantizer.read_bytes())
    for file in weight_files(directory) if has_weights else ():
        digest.update(f"\n{file.name} {file.stat().st_size}\n".encode())
        digest.update(_sample(file))
    return digest.hexdigest()


def _sample(file: Path) -> bytes:
    """The beginning of a file and blocks that are spread evenly over the rest."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = min(_header_length(opened.read(8)), _HEADER_BYTES)
        parts = [opened.read(length)]
        for index in range(_NUM_SAMPLES):
            opened.seek(max(0, size - _SAMPLE_BYTES) * index // (_NUM_SAMPLES - 1))
            parts.append(opened.read(_SAMPLE_BYTES))
    return b"".join(parts)


def _header_length(start: bytes) -> int:
    """How long a safetensors header is; for another format, any number."""
    return int.from_bytes(start, "little")
