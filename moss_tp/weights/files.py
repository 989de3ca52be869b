"""Which files of a model directory hold its weights, and whether they are what their names say.

Owns the layouts: safetensors or `pytorch_model*.bin`, in one file or in several with an index. It
reads no tensor and needs no torch.
"""

import shlex
import zipfile
from pathlib import Path

from moss_tp.errors import CheckpointError
from moss_tp.json_file import read_json
from moss_tp.lfs import check_not_pointer

_FORMATS = (
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
# Files that a user may take for weights which the directory lacks.
_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack")
_PICKLE_START = b"\x80"
_CONVERT = (
    "import sys, torch; file = sys.argv[1]; "
    "torch.save(torch.load(file, map_location='cpu', weights_only=True), file)"
)
_MAX_NAMED = 3


def weight_files(directory: Path) -> list[Path]:
    """The files that hold the checkpoint's tensors; like transformers, safetensors where both
    formats are there, and the single file where there is an index too.

    Raises CheckpointError, naming the file, for one that is missing or a git-LFS pointer.
    """
    for single, index in _FORMATS:
        if (directory / single).exists():
            return [_checked(directory / single, "")]
        if (directory / index).exists():
            return [_checked(file, reason) for file, reason in _indexed(directory / index).items()]
    names = ", ".join(name for pair in _FORMATS for name in pair)
    raise CheckpointError(
        f"there are no weights in {directory}: none of {names}{_strays(directory)}"
    )


def check_archive(file: Path) -> None:
    """Raises CheckpointError unless a `.bin` file is a whole archive of torch.save."""
    if zipfile.is_zipfile(file):
        return
    with file.open("rb") as opened:
        start = opened.read(len(_PICKLE_START))
    if start == _PICKLE_START:
        raise CheckpointError(
            f"{file} is in PyTorch's format from before 1.6, which cannot be read in parts. "
            f"Convert it: python -c {shlex.quote(_CONVERT)} {shlex.quote(str(file))}"
        )
    raise CheckpointError(f"{file} cannot be read: it is cut off, or was not written by torch.save")


def _checked(file: Path, reason: str) -> Path:
    if not file.is_file():
        raise CheckpointError(f"the weight file {file} is missing{reason}")
    check_not_pointer(file)
    return file


def _indexed(index: Path) -> dict[Path, str]:
    """The files that an index names, in order, each with whose sake it is named for."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map")
    files: dict[Path, str] = {}
    for tensor, name in sorted(weight_map.items(), key=lambda item: str(item[1])):
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(f"{index} puts {tensor} into {name!r}, not a file beside it")
        files.setdefault(index.parent / name, f": {index.name} puts {tensor} into it")
    return files


def _strays(directory: Path) -> str:
    """Says which files look like weights but are not named as such."""
    found = sorted(f.name for f in directory.iterdir() if f.suffix in _WEIGHT_SUFFIXES)
    if not found:
        return ""
    shown = ", ".join(found[:_MAX_NAMED]) + (" and more" if len(found) > _MAX_NAMED else "")
    return f"; there is {shown}, which no index names"
