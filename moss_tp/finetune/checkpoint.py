"""Saves a run: the state to resume from, and the model as a directory that can be served.

Both get their names by one rename, after everything is on disk, so a process that is killed at any
moment leaves a whole state and a whole model, or none. States before the last are removed after.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from accelerate.utils import gather_object  # type: ignore[import-untyped]
from safetensors.torch import save_file
from torch import Tensor

from moss_tp.errors import CheckpointError, ConfigError, MossError
from moss_tp.finetune.durable import remove, rename, sync, sync_tree
from moss_tp.finetune.manifest import (
    Manifest,
    Progress,
    check_parts,
    write_manifest,
    write_part,
)
from moss_tp.finetune.output import OutputDir, step_of
from moss_tp.finetune.recipe import Recipe
from moss_tp.json_file import read_json
from moss_tp.tokenizer_files import TOKENIZER_FILES

_WEIGHTS = "model.safetensors"


def together(
    accelerator: Accelerator, what: str, action: Callable[[], object], *, main_only: bool
) -> None:
    """Runs `action` on every process or on the main one, and waits for all.

    If it fails on one, every process raises: a ConfigError as such, all else as CheckpointError
    that says `what` failed.
    """
    failure: tuple[bool, str] | None = None
    if accelerator.is_main_process or not main_only:
        try:
            action()
        # A full disk makes torch, safetensors and the system raise unrelated types.
        except Exception as error:
            reason = str(error) if isinstance(error, MossError) else f"{what} failed: {error}"
            failure = (isinstance(error, ConfigError), reason)
    for other in gather_object([failure]):
        if other is not None:
            raise (ConfigError if other[0] else CheckpointError)(other[1])


def save_state(
    accelerator: Accelerator, output: OutputDir, progress: Progress, recipe: Recipe
) -> None:
    """Saves model, optimizer, schedule and RNG states. Every process must call it.

    Raises CheckpointError when it cannot; the state before stays.
    """
    new = output.new_state(progress.step)
    process, count = accelerator.process_index, accelerator.num_processes
    what = f"saving {new}"

    def write() -> None:
        accelerator.save_state(str(new))
        write_part(new, output.run, progress.step, process, count)

    def finish() -> None:
        older = output.states()
        check_parts(new, output.run, progress.step, count)
        write_manifest(new, output.run, progress, recipe)
        rename(new, new.with_suffix(""))
        for state in older:
            remove(state)

    try:
        together(accelerator, what, new.mkdir, main_only=True)
        together(accelerator, what, write, main_only=False)
        # Only now: files of other processes may have had temporary names.
        together(accelerator, what, partial(sync_tree, new), main_only=False)
        together(accelerator, what, finish, main_only=True)
    except CheckpointError:
        if accelerator.is_main_process:
            shutil.rmtree(new, ignore_errors=True)
        raise


def load_state(
    accelerator: Accelerator, output: OutputDir, recipe: Recipe
) -> tuple[Progress, list[str]]:
    """Restores the latest state; how far the run was, and which settings change from there.

    Raises CheckpointError for a state that is not whole, ConfigError for one of another recipe.
    """
    state = output.states()[-1]
    count = accelerator.num_processes

    def check() -> None:
        saved = read_json(state / "manifest.json").get("recipe")
        if isinstance(saved, dict):
            Recipe(saved.get("fixed", {}), saved.get("free", {})).changes(recipe)
        Manifest.read(state, step_of(state), count)
        for older in output.states()[:-1]:
            remove(older)

    together(accelerator, "resuming", check, main_only=True)
    manifest = Manifest.read(state, step_of(state), count)
    accelerator.load_state(str(state))
    return manifest.progress, manifest.recipe.changes(recipe)


def export_model(
    weights: Mapping[str, Tensor], source: Path, output: OutputDir, dtype: torch.dtype
) -> None:
    """Writes the model directory that can be served; later calls replace its weights at once, and
    bring back what was removed from it.

    `weights` are saved as safetensors in `dtype`; config and tokenizer come from the base model's
    directory `source`.
    """
    new = output.new_model
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    try:
        tensors = {name: t.detach().to("cpu", dtype).contiguous() for name, t in weights.items()}
        save_file(tensors, new / _WEIGHTS, metadata={"format": "pt"})
        _copy_others(source, new, dtype)
        output.mark_model(new)
        sync_tree(new)
        if output.owns_model():
            _renew(new, output.model)
        else:
            rename(new, output.model)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _renew(new: Path, model: Path) -> None:
    """Puts the new weights into `model`, after the other files that are missing there."""
    for file in new.iterdir():
        if file.name != _WEIGHTS and not (model / file.name).exists():
            file.replace(model / file.name)
    (new / _WEIGHTS).replace(model / _WEIGHTS)
    sync(model)


def _copy_others(source: Path, target: Path, dtype: torch.dtype) -> None:
    """Config and tokenizer of the base model."""
    config = read_json(source / "config.json")
    config.pop("torch_dtype", None)
    config["dtype"] = str(dtype).removeprefix("torch.")
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (target / "config.json").write_text(text, encoding="utf-8")
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
