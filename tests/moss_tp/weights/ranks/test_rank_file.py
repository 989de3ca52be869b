"""A rank's file in many pieces: what is written is read, and each piece's damage is found."""

import json
from pathlib import Path

import pytest
import torch

from moss_tp.errors import CheckpointError
from moss_tp.weights.ranks import pieces, rank_file
from moss_tp.weights.ranks.rank_file import EMBEDDING, Part, RankParts, RankWriter

PIECE = 4096


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (pieces, rank_file):
        monkeypatch.setattr(module, "PIECE_BYTES", PIECE)


def written(directory: Path) -> tuple[Path, dict[str, Part]]:
    parts = {
        "one": Part({"a": 1}, (torch.randn(3000), torch.arange(5), torch.empty(0))),
        "two": Part(None, (torch.randn(7, 3).bfloat16(), torch.arange(9000).to(torch.uint8))),
        EMBEDDING: Part(None, (torch.randn(90, 40),)),
    }
    file = directory / "rank.bin"
    with RankWriter(file) as writer:
        for name, part in parts.items():
            writer.add(name, part)
        file.with_suffix(".json").write_text(json.dumps(writer.index), "utf-8")
    return file, parts


@pytest.mark.parametrize("num_threads", [1, 3])
def test_parts_are_read_as_they_were_written(tmp_path: Path, num_threads: int) -> None:
    file, parts = written(tmp_path)
    found = RankParts.read(file, num_threads)
    for name, part in parts.items():
        own = found.take(name)
        assert own.description == part.description
        assert all(map(torch.equal, own.tensors, part.tensors))
        assert [t.dtype for t in own.tensors] == [t.dtype for t in part.tensors]
    with pytest.raises(CheckpointError, match="no part other"):
        found.take("other")


def test_a_flipped_bit_is_found_in_every_piece(tmp_path: Path) -> None:
    file, _ = written(tmp_path)
    content = file.read_bytes()
    for start in range(0, len(content), PIECE):
        changed = bytearray(content)
        changed[min(start + 1234, len(content) - 1)] ^= 4
        file.write_bytes(changed)
        with pytest.raises(CheckpointError, match=f"{file} is broken at bytes {start} to"):
            RankParts.read(file, 1)


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    file, _ = written(tmp_path)
    content = file.read_bytes()
    file.write_bytes(content[:-5])
    with pytest.raises(CheckpointError, match="cut off at byte"):
        RankParts.read(file, 1)


@pytest.mark.parametrize("index", [{}, {"size": 1, "crc32": [], "parts": {EMBEDDING: 3}}])
def test_another_index_is_refused(tmp_path: Path, index: dict[str, object]) -> None:
    file, _ = written(tmp_path)
    file.with_suffix(".json").write_text(json.dumps(index), "utf-8")
    with pytest.raises(CheckpointError, match="not an index"):
        RankParts.read(file, 1)


def test_checksums_of_another_file_are_refused(tmp_path: Path) -> None:
    file, _ = written(tmp_path)
    index_file = file.with_suffix(".json")
    index = json.loads(index_file.read_text("utf-8"))
    index_file.write_text(json.dumps(index | {"crc32": index["crc32"][:-1]}), "utf-8")
    with pytest.raises(CheckpointError, match="checksums for"):
        RankParts.read(file, 1)
