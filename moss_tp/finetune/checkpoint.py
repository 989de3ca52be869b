"""Saves a run: the model as a directory that can be served, and the state to resume from.

A directory is written under a temporary name and renamed, so a partial checkpoint is never read.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from safetensors.torch import save_file
from torch import Tensor

from moss_tp.errors import CheckpointError
from moss_tp.json_file import read_json

# Copied from the base model beside config and weights.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "meta_instruction.txt",
)
_PROGRESS = "progress.json"


@dataclass(frozen=True)
class Progress:
    """How far a run has come: its optimizer steps, the current epoch and batches done in it."""

    step: int = 0
    epoch: int = 0
    batch: int = 0


def export_model(
    weights: Mapping[str, Tensor], source: Path, directory: Path, dtype: torch.dtype
) -> None:
    """Writes a model directory that can be served.

    `weights` are saved as safetensors in `dtype`; config and tokenizer come from the base model's
    directory `source`.
    """

    def write(target: Path) -> None:
        tensors = {name: t.detach().to("cpu", dtype).contiguous() for name, t in weights.items()}
        save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
        config = read_json(source / "config.json")
        config.pop("torch_dtype", None)
        config["dtype"] = str(dtype).removeprefix("torch.")
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        (target / "config.json").write_text(text, encoding="utf-8")
        for name in TOKENIZER_FILES:
            if (source / name).is_file():
                shutil.copyfile(source / name, target / name)

    _write_atomically(directory, write)


def save_state(accelerator: Accelerator, directory: Path, progress: Progress) -> None:
    """Saves model, optimizer, schedule and RNG states. Every process must call it."""
    if accelerator.num_processes > 1:
        accelerator.save_state(str(directory))
    else:
        _write_atomically(directory, lambda target: accelerator.save_state(str(target)))
    if accelerator.is_main_process:
        text = json.dumps(asdict(progress))
        (directory / _PROGRESS).write_text(text, encoding="utf-8")


def load_state(accelerator: Accelerator, directory: Path) -> Progress:
    """Restores what `save_state` saved. Raises CheckpointError when there is nothing to resume."""
    if not (directory / _PROGRESS).is_file():
        raise CheckpointError(f"nothing to resume in {directory}")
    accelerator.load_state(str(directory))
    return Progress(**read_json(directory / _PROGRESS))


def _write_atomically(directory: Path, write: Callable[[Path], None]) -> None:
    """Replaces `directory` by what `write` writes into the directory that it is given."""
    new, old = directory.with_name(f".{directory.name}.new"), directory.with_name(".old")
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    new.mkdir(parents=True)
    write(new)
    if directory.exists():
        directory.rename(old)
    new.rename(directory)
    shutil.rmtree(old, ignore_errors=True)
