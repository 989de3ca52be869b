"""One rank's packed weights in a file, and its index beside it.

    | part | part | ... | 0 | embedding rows |      each tensor begins a page, the rows a piece

A part is a description, which only the kernels understand, and tensors. All parts but the last are
read into huge pages of memory, where steps stream them fastest; the embedding's rows are mapped, so
that those of tokens that never come take no memory. Every byte is checked on the way.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import get_ident
from typing import Any, Self
from zlib import crc32

import torch
from torch import Tensor

from moss_tp.errors import CheckpointError
from moss_tp.json_file import read_json
from moss_tp.native.huge_pages import huge_zeros, map_file
from moss_tp.weights.ranks.pieces import PIECE_BYTES, Buffer, read_pieces

EMBEDDING = "wte"
_PAGE = 4096


@dataclass(frozen=True)
class Part:
    """What kernels have packed: tensors, and a description in JSON of what they are."""

    description: Any
    tensors: tuple[Tensor, ...]


@dataclass(frozen=True)
class _Place:
    """Where a tensor is in the file. `dtype` by torch's name."""

    offset: int
    dtype: str
    shape: tuple[int, ...]

    def within(self, memory: Tensor, start: int = 0) -> Tensor:
        """The tensor in `memory`, which holds the file's bytes from `start` on."""
        dtype: torch.dtype = getattr(torch, self.dtype)
        count = torch.Size(self.shape).numel() * dtype.itemsize
        first = self.offset - start
        return memory[first : first + count].view(dtype).view(self.shape)


class RankWriter:
    """Writes parts, the embedding last, to `file`, and then its `index`."""

    def __init__(self, file: Path) -> None:
        self._opened = file.open("wb")
        self._size, self._crc = 0, 0
        self._pieces: list[int] = []
        self._parts: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.close()

    def add(self, name: str, part: Part) -> None:
        if name == EMBEDDING:
            self._pad(PIECE_BYTES)
        places = [asdict(self._write(tensor)) for tensor in part.tensors]
        self._parts[name] = {"description": part.description, "tensors": places}

    @property
    def index(self) -> dict[str, Any]:
        """As JSON. Nothing can be added after it."""
        if self._size % PIECE_BYTES:
            self._pieces.append(self._crc)
        self._opened.flush()
        return {"size": self._size, "parts": self._parts, "crc32": self._pieces}

    def _write(self, tensor: Tensor) -> _Place:
        self._pad(_PAGE)
        place = _Place(self._size, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
        flat = tensor.detach().contiguous().view(-1)
        if len(flat):
            self._append(flat.view(torch.uint8).numpy().data)
        return place

    def _pad(self, unit: int) -> None:
        self._append(memoryview(bytes(-self._size % unit)))

    def _append(self, data: Buffer) -> None:
        self._opened.write(data)
        while len(data):
            part = data[: PIECE_BYTES - self._size % PIECE_BYTES]
            self._crc = crc32(part, self._crc)
            self._size += len(part)
            data = data[len(part) :]
            if self._size % PIECE_BYTES == 0:
                self._pieces.append(self._crc)
                self._crc = 0


class RankParts:
    """A rank's parts by name."""

    def __init__(self, parts: dict[str, Part]) -> None:
        self._parts = parts

    @classmethod
    def read(cls, file: Path, num_threads: int) -> Self:
        """Of the tensors in `file`, whose index is beside it. Raises CheckpointError for files that
        are broken or cut."""
        index_file = file.with_suffix(".json")
        index = read_json(index_file)
        try:
            size, checksums = int(index["size"]), [int(crc) for crc in index["crc32"]]
            parts = {name: _places(part["tensors"]) for name, part in index["parts"].items()}
            descriptions = {name: part["description"] for name, part in index["parts"].items()}
            border = parts[EMBEDDING][0].offset
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise CheckpointError(f"{index_file} is not an index of tensors: {error!r}") from error
        memory = _read(file, size, border, checksums, num_threads)
        rows = map_file(file, border, size)
        return cls(
            {
                name: Part(
                    descriptions[name],
                    tuple(
                        place.within(rows, border) if name == EMBEDDING else place.within(memory)
                        for place in places
                    ),
                )
                for name, places in parts.items()
            }
        )

    def take(self, name: str) -> Part:
        """Raises CheckpointError for one that is not there."""
        if name not in self._parts:
            raise CheckpointError(f"the rank's file has no part {name}")
        return self._parts[name]


def _places(fields: Sequence[dict[str, Any]]) -> list[_Place]:
    return [_Place(int(f["offset"]), str(f["dtype"]), tuple(f["shape"])) for f in fields]


def _read(file: Path, size: int, border: int, checksums: Sequence[int], threads: int) -> Tensor:
    """The bytes before `border`; those behind it are only checked."""
    memory = huge_zeros(border, dtype=torch.uint8)
    view: Buffer = memory.numpy().data
    scratch: defaultdict[int, bytearray] = defaultdict(lambda: bytearray(PIECE_BYTES))  # by thread

    def target(start: int, stop: int) -> Buffer:
        if start < border:
            return view[start:stop]
        return memoryview(scratch[get_ident()])[: stop - start]

    read_pieces(file, checksums, size, target, threads)
    return memory
