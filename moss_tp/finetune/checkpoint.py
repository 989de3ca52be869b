"""What a run leaves on disk: model directories that can be served, and the state to resume from.

A directory is written under another name and renamed, so a reader never meets half a checkpoint.
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

COMPANIONS = (
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
    """How far a run has come: optimizer steps in all, and where its next epoch's batch is."""

    step: int = 0
    epoch: int = 0
    batch: int = 0


def export_model(
    weights: Mapping[str, Tensor], source: Path, directory: Path, dtype: torch.dtype
) -> None:
    """A directory to serve from: `weights` as safetensors, and what `source` has beside its own."""

    def write(target: Path) -> None:
        tensors = {name: t.detach().to("cpu", dtype).contiguous() for name, t in weights.items()}
        save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
        config = json.loads((source / "config.json").read_text(encoding="utf-8"))
        config.pop("torch_dtype", None)
        config["dtype"] = str(dtype).removeprefix("torch.")
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        (target / "config.json").write_text(text, encoding="utf-8")
        for name in COMPANIONS:
            if (source / name).is_file():
                shutil.copyfile(source / name, target / name)

    _write_whole(directory, write)


def save_state(accelerator: Accelerator, directory: Path, progress: Progress) -> None:
    """Model, optimizer, schedule and random states; every process must call it."""
    if accelerator.num_processes > 1:
        accelerator.save_state(str(directory))
    else:
        _write_whole(directory, lambda target: accelerator.save_state(str(target)))
    if accelerator.is_main_process:
        text = json.dumps(asdict(progress))
        (directory / _PROGRESS).write_text(text, encoding="utf-8")


def load_state(accelerator: Accelerator, directory: Path) -> Progress:
    """Restore what save_state wrote; CheckpointError when there is nothing to resume."""
    if not (directory / _PROGRESS).is_file():
        raise CheckpointError(f"nothing to resume in {directory}")
    accelerator.load_state(str(directory))
    return Progress(**json.loads((directory / _PROGRESS).read_text(encoding="utf-8")))


def _write_whole(directory: Path, write: Callable[[Path], None]) -> None:
    fresh, old = directory.with_name(f".{directory.name}.new"), directory.with_name(".old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir(parents=True)
    write(fresh)
    if directory.exists():
        directory.rename(old)
    fresh.rename(directory)
    shutil.rmtree(old, ignore_errors=True)
