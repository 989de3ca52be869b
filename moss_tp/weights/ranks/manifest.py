"""What a directory of `moss shard` holds: of which model, cut and packed for what, in which files.

    sharded.json            this manifest, written last
    rank-0-of-2.json        where each tensor is in the rank's file, and that file's checksums
    rank-0-of-2.bin         the tensors, see `rank_file`
    config.json, ...        copies of the source's

It reads no tensor and needs no torch.
"""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from moss_tp.errors import CheckpointError
from moss_tp.json_file import read_json

MANIFEST = "sharded.json"
FORMAT = 2  # of these files, and of what the CPU's kernels read in them
_AGAIN = "make it again with `moss shard`"


@dataclass(frozen=True)
class FileEntry:
    """`sha256` is None for a rank's tensors: their checksums are in its index."""

    size: int
    sha256: str | None


@dataclass(frozen=True)
class Manifest:
    """`source` is the directory that the weights are from, `source_digest` its `weights_digest`.
    `dense` and `biased` are those of `QuantConfig`. `vectors`: see `native.instruction_set`."""

    source: str
    source_digest: str
    tp_size: int
    dtype: str
    vectors: str
    lm_head_bits: int | None
    dense: tuple[str, ...]
    biased: tuple[str, ...]
    files: dict[str, FileEntry]

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Raises CheckpointError for one that is broken or of another version."""
        file = directory / MANIFEST
        fields = read_json(file)
        if (version := fields.pop("format", None)) != FORMAT:
            raise CheckpointError(
                f"{file} is of format {version}, and this version of moss reads {FORMAT}: {_AGAIN}"
            )
        try:
            files = {name: FileEntry(**entry) for name, entry in fields.pop("files").items()}
            dense, biased = tuple(fields.pop("dense")), tuple(fields.pop("biased"))
            return cls(files=files, dense=dense, biased=biased, **fields)
        except (AttributeError, KeyError, TypeError) as error:
            raise CheckpointError(f"{file} is not a manifest of moss shard: {error!r}") from error

    @property
    def fields(self) -> dict[str, Any]:
        """As JSON."""
        return {"format": FORMAT, **asdict(self)}

    def check_files(self, directory: Path) -> None:
        """Raises CheckpointError for a file that is missing, cut or, if it is a small one, changed;
        tensors are checked when they are read."""
        for name, entry in self.files.items():
            file = directory / name
            if not file.is_file():
                raise CheckpointError(f"{file} is missing: {_AGAIN}")
            if (size := file.stat().st_size) != entry.size:
                raise CheckpointError(f"{file} has {size} bytes instead of {entry.size}: {_AGAIN}")
            if entry.sha256 is not None and sha256(file) != entry.sha256:
                raise CheckpointError(f"{file} has changed since it was written: {_AGAIN}")


def is_sharded(directory: Path) -> bool:
    """Whether `moss shard` has written the directory."""
    return (directory / MANIFEST).is_file()


def sha256(file: Path) -> str:
    """Of a small file's bytes, in hex."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def rank_name(rank: int, tp_size: int) -> str:
    """Of a rank's files, without suffix."""
    return f"rank-{rank}-of-{tp_size}"
