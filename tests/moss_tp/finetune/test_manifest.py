"""A state is resumed only if it is whole, of one step in every part, and of the same recipe."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moss_tp.errors import CheckpointError, ConfigError
from moss_tp.finetune.durable import fingerprint
from moss_tp.finetune.manifest import Manifest, Progress, write_manifest, write_part
from moss_tp.finetune.output import OutputDir
from moss_tp.finetune.recipe import Recipe
from moss_tp.finetune.settings import FinetuneSettings
from moss_tp.finetune.trainer import finetune
from tests.moss_tp.finetune.tiny_run import make_settings, run_processes

RECIPE = Recipe({"seed": 1}, {"epochs": 2})
PROGRESS = Progress(step=6, epoch=1, batch=2)


def write_state(directory: Path, step: int = 6, num_processes: int = 2, text: str = "x") -> Path:
    """A state of two processes, with a file in a folder."""
    (directory / "shards").mkdir(parents=True)
    (directory / "model.safetensors").write_text(text)
    (directory / "shards" / "optimizer.bin").write_text(text)
    for process in range(num_processes):
        write_part(directory, "run", step, process, num_processes)
    write_manifest(directory, "run", replace(PROGRESS, step=step), RECIPE)
    return directory


def test_a_whole_state_is_read_back(tmp_path: Path) -> None:
    manifest = Manifest.read(write_state(tmp_path / "a"), 6, num_processes=2)
    assert (manifest.run, manifest.progress, manifest.recipe) == ("run", PROGRESS, RECIPE)
    assert set(manifest.files) == {
        "model.safetensors",
        "shards/optimizer.bin",
        "part-00000.json",
        "part-00001.json",
    }


def _change_manifest(**changes: Any) -> Callable[[Path], object]:
    def change(state: Path) -> None:
        file = state / "manifest.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda state: (state / "manifest.json").unlink(), "there is no .*manifest"),
        (lambda state: (state / "manifest.json").write_text("{}"), "is not a manifest"),
        (_change_manifest(progress={"step": 7}), "is of step 7 by its manifest"),
        (_change_manifest(progress={"steps": 6}), "is not a manifest"),
        (_change_manifest(recipe=None), "is not a manifest"),
        (lambda state: (state / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda state: (state / "model.safetensors").write_text("y"), "is not the file that was"),
        (lambda state: (state / "shards" / "optimizer.bin").write_text(""), "is not the file"),
        (lambda state: (state / "part-00001.json").unlink(), "part-00001.json is missing"),
        (lambda state: write_part(state, "run", 5, 1, 2), "part-00001.json is not the file"),
    ],
)
def test_damage_is_named(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    state = write_state(tmp_path / "a")
    damage(state)
    with pytest.raises(CheckpointError, match=message.replace(".", r"\.").replace(r"\.*", ".*")):
        Manifest.read(state, 6, num_processes=2)


@pytest.mark.parametrize("name", ["model.safetensors", "shards/optimizer.bin", "part-00000.json"])
def test_parts_of_two_steps_are_no_state(tmp_path: Path, name: str) -> None:
    """The fault: weights of step 2 with the optimizer and progress of step 1."""
    first = write_state(tmp_path / "1", step=1, text="1")
    second = write_state(tmp_path / "2", step=2, text="2")
    (first / name).write_bytes((second / name).read_bytes())
    with pytest.raises(CheckpointError, match=f"{name} is not the file that was saved"):
        Manifest.read(first, 1, num_processes=2)


@pytest.mark.parametrize("step", [5, 7])
def test_a_part_of_another_step_is_refused_when_it_is_saved(tmp_path: Path, step: int) -> None:
    state = tmp_path / "a"
    state.mkdir()
    write_part(state, "run", 6, 0, 2)
    write_part(state, "run", step, 1, 2)
    write_manifest(state, "run", PROGRESS, RECIPE)
    with pytest.raises(CheckpointError, match=r"part-00001\.json is of another run, step"):
        Manifest.read(state, 6, num_processes=2)


def test_a_state_of_more_processes_is_refused(tmp_path: Path) -> None:
    state = write_state(tmp_path / "a")
    for count in (1, 3):
        with pytest.raises(CheckpointError, match="part-0000"):
            Manifest.read(state, 6, num_processes=count)


def test_large_files_are_told_apart(tmp_path: Path) -> None:
    """By their size, their first or their last MiB."""
    file, size = tmp_path / "file", 3 << 20
    found = set()
    for at, length in ((0, size), (size - 1, size), (None, size), (None, size + 1)):
        content = bytearray(length)
        if at is not None:
            content[at] = 1
        file.write_bytes(content)
        found.add(fingerprint(file))
    assert len(found) == 4


@pytest.fixture(scope="module")
def resumable(tmp_path_factory: pytest.TempPathFactory) -> FinetuneSettings:
    settings = make_settings(tmp_path_factory.mktemp("run"), save_step=2, max_steps=2)
    finetune(settings)
    return replace(settings, resume=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"learning_rate": 1e-3},
        {"batch_size": 2},
        {"seed": 1},
        {"max_seq_len": 200},
        {"mask_human": True},
        {"gradient_accumulation": 2},
        {"export_dtype": "bfloat16"},
        {"adam_beta2": 0.9},
        {"weight_decay": 0.0},
    ],
)
def test_settings_that_a_state_rests_on_cannot_change(
    resumable: FinetuneSettings, changes: dict[str, Any]
) -> None:
    ((name, value),) = changes.items()
    before = getattr(resumable, name) if name != "max_seq_len" else 512
    with pytest.raises(ConfigError, match=rf"has {name} {before} instead of {value}"):
        finetune(replace(resumable, **changes))


def test_other_data_are_refused(resumable: FinetuneSettings, tmp_path: Path) -> None:
    text = (resumable.data_dir / "train.jsonl").read_text()
    (tmp_path / "train.jsonl").write_text(text.replace("It is 5.", "It is 6.", 1))
    with pytest.raises(ConfigError, match=r"has training_data .* instead of"):
        finetune(replace(resumable, data_dir=tmp_path))


def test_the_same_data_elsewhere_are_taken(
    resumable: FinetuneSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.jsonl").write_bytes((resumable.data_dir / "train.jsonl").read_bytes())
    assert finetune(replace(resumable, data_dir=tmp_path)).step == 2
    assert "instead of" not in capsys.readouterr().err


def test_a_longer_schedule_is_taken_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = make_settings(tmp_path, save_step=2, max_steps=2)
    finetune(settings)
    assert finetune(replace(settings, resume=True, max_steps=3, epochs=3)).step == 3
    said = capsys.readouterr().err
    assert "the run had epochs 2 instead of 3, max_steps 2 instead of 3: changed from" in said


def test_other_numbers_of_processes_are_refused(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, save_step=2, max_steps=2, batch_size=1)
    assert [ended.error for ended in run_processes(settings, 2)] == [None, None]
    (ended,) = run_processes(replace(settings, resume=True), 1)
    assert ended.error is not None
    assert "has num_processes 2 instead of 1" in ended.error
    assert len(OutputDir(settings.output_dir).states()) == 1
