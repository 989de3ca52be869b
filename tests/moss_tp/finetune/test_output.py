"""A run writes only what is its own, and says whose what it refuses is."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from moss_tp.errors import CheckpointError, ConfigError
from moss_tp.finetune.output import OutputDir, check_apart
from moss_tp.finetune.settings import FinetuneSettings
from moss_tp.finetune.trainer import finetune
from tests.moss_tp.finetune.tiny_run import (
    Disturbance,
    are_equal,
    exported_weights,
    files_below,
    make_settings,
    run_processes,
)


@pytest.fixture
def settings(tmp_path: Path) -> FinetuneSettings:
    return make_settings(tmp_path, epochs=1, save_step=2)


def refuse(settings: FinetuneSettings, message: str) -> None:
    """The run is refused before it has changed anything."""
    before = files_below(settings.output_dir.parent)
    with pytest.raises(ConfigError, match=message):
        finetune(settings)
    assert files_below(settings.output_dir.parent) == before


def write(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("mine")


@pytest.mark.parametrize(
    "name", ["model/config.json", "state/notes", "model/a/b", "state/run.json"]
)
def test_a_directory_of_somebody_else_is_refused(settings: FinetuneSettings, name: str) -> None:
    write(settings.output_dir / name)
    with pytest.raises((ConfigError, CheckpointError), match=r"state|model"):
        finetune(settings)
    assert (settings.output_dir / name).read_text() == "mine"
    assert len(files_below(settings.output_dir)) == 1


@pytest.mark.parametrize("name", ["model", "state"])
def test_a_file_or_a_link_in_its_place_is_refused(settings: FinetuneSettings, name: str) -> None:
    write(settings.output_dir / name)
    refuse(settings, "choose another --output-dir")
    (settings.output_dir / name).unlink()
    elsewhere = settings.output_dir.parent / "elsewhere"
    elsewhere.mkdir()
    for target in (elsewhere, settings.model, Path("nowhere")):
        (settings.output_dir / name).symlink_to(target)
        refuse(settings, "choose another --output-dir")
        (settings.output_dir / name).unlink()


def test_empty_directories_are_taken(settings: FinetuneSettings) -> None:
    for name in ("model", "state"):
        (settings.output_dir / name).mkdir(parents=True)
    assert finetune(settings).step == 4
    assert (settings.output_dir / "model" / "model.safetensors").is_file()


def test_what_else_is_there_is_left_as_it_is(settings: FinetuneSettings) -> None:
    """The output directory of the fault: the user's own `.old` beside the base model."""
    for name in (".old/diary", ".model.new/a", "model.old/b", "old/c", "step-00000002.new/d"):
        write(settings.output_dir / name)
    before = files_below(settings.output_dir)
    finetune(settings)
    after = files_below(settings.output_dir)
    assert {path: after.get(path) for path in before} == before


@pytest.mark.parametrize(
    "place",
    [
        lambda base: base,
        lambda base: base.parent,
        lambda base: base / "tuned",
        lambda base: base.parent / "other" / ".." / base.name,
    ],
)
def test_the_base_model_is_never_an_output(
    settings: FinetuneSettings, place: Callable[[Path], Path]
) -> None:
    (settings.model.parent / "other").mkdir()
    before = files_below(settings.model.parent)
    with pytest.raises(ConfigError, match="not apart from the base model"):
        finetune(replace(settings, output_dir=place(settings.model)))
    assert files_below(settings.model.parent) == before


def test_links_do_not_hide_the_base_model(tmp_path: Path) -> None:
    base = tmp_path / "runs" / "model"
    base.mkdir(parents=True)
    (tmp_path / "link").symlink_to(base)
    (tmp_path / "around").symlink_to(tmp_path / "runs")
    for output in (tmp_path / "link", tmp_path / "around"):
        with pytest.raises(ConfigError, match="not apart"):
            check_apart(output, base)
    with pytest.raises(ConfigError, match="not apart"):
        check_apart(tmp_path / "runs", tmp_path / "link")


def test_relative_paths_are_compared_too(
    settings: FinetuneSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`moss finetune --model tiny --output-dir .`"""
    monkeypatch.chdir(settings.model.parent)
    with pytest.raises(ConfigError, match="not apart"):
        finetune(replace(settings, model=Path("tiny"), output_dir=Path()))


def test_an_earlier_run_is_continued_or_left(settings: FinetuneSettings) -> None:
    finetune(settings)
    refuse(settings, "holds step 4 of an earlier run: continue it with --resume")
    weights = exported_weights(settings)
    assert finetune(replace(settings, resume=True)).step == 4
    assert are_equal(exported_weights(settings), weights)


def test_a_resumed_run_does_not_replace_another_model(settings: FinetuneSettings) -> None:
    finetune(settings)
    (settings.output_dir / "model" / "finetune.json").unlink()
    refuse(replace(settings, resume=True), "model holds files that this run did not make")


def test_a_model_that_was_moved_away_is_written_again(settings: FinetuneSettings) -> None:
    finetune(settings)
    weights = exported_weights(settings)
    (settings.output_dir / "model").rename(settings.output_dir / "kept")
    finetune(replace(settings, resume=True))
    assert are_equal(exported_weights(settings), weights)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_what_was_removed_from_the_model_is_written_again(
    settings: FinetuneSettings, name: str
) -> None:
    finetune(settings)
    weights = exported_weights(settings)
    (settings.output_dir / "model" / name).unlink()
    write(settings.output_dir / "model" / "notes")
    finetune(replace(settings, resume=True))
    assert are_equal(exported_weights(settings), weights)
    assert (settings.output_dir / "model" / name).is_file()
    assert (settings.output_dir / "model" / "notes").read_text() == "mine"


@pytest.mark.parametrize("name", ["model", "state"])
def test_what_was_moved_behind_a_link_is_refused(settings: FinetuneSettings, name: str) -> None:
    """It may be on another file system, into which nothing can be renamed at the run's end."""
    finetune(settings)
    moved = settings.output_dir.parent / "moved"
    (settings.output_dir / name).rename(moved)
    (settings.output_dir / name).symlink_to(moved)
    refuse(replace(settings, resume=True), f"{name} is a symbolic link")


class LateOutputDir(OutputDir):
    """Before it can lock the directory, another run comes and goes."""

    def _lock(self, descriptor: int) -> None:
        other = OutputDir(self.state.parent)
        with other.owned(resume=False):
            other.new_state(2).with_suffix("").mkdir()
        super()._lock(descriptor)


def test_a_run_that_ended_just_before_is_not_overwritten(tmp_path: Path) -> None:
    late = LateOutputDir(tmp_path / "out")
    with (
        pytest.raises(ConfigError, match="holds step 2 of an earlier run"),
        late.owned(resume=False),
    ):
        pass


def test_two_runs_at_once(settings: FinetuneSettings) -> None:
    with OutputDir(settings.output_dir).owned(resume=False):
        refuse(settings, "another run is writing")
    assert finetune(settings).step == 4


def test_leftovers_of_a_killed_run_are_cleared_and_nothing_else(tmp_path: Path) -> None:
    output = OutputDir(tmp_path / "out")
    with output.owned(resume=False):
        pass
    for name in ("step-00000002.new", "step-00000001.old", "model.new", "mine.new", "step-2.new"):
        write(output.state / name / "file")
    write(output.state / "notes")
    with output.owned(resume=False):
        names = {path.name for path in output.state.iterdir()}
    assert names == {"run.json", "mine.new", "step-2.new", "notes"}


def test_a_full_disk_keeps_the_state_before(settings: FinetuneSettings) -> None:
    """The disk is full from some moment of the last save on."""
    whole = replace(settings, output_dir=settings.output_dir.with_name("whole"))
    (undisturbed,) = run_processes(whole)
    errors = []
    for call in range(undisturbed.num_calls - 45, undisturbed.num_calls, 15):
        full = replace(settings, output_dir=settings.output_dir.with_name(f"full-{call}"))
        (ended,) = run_processes(full, 1, Disturbance(call, kind="full disk"))
        assert ended.exit_code == 0
        errors.append(ended.error)
        output = OutputDir(full.output_dir)
        assert len(output.states()) == 1
        assert not list(output.state.glob("*.new"))
        (resumed,) = run_processes(replace(full, resume=True))
        assert resumed.error is None
        assert are_equal(exported_weights(full), exported_weights(whole))
    assert any(error is not None and error.startswith("saving ") for error in errors)


def test_a_directory_that_cannot_be_written(settings: FinetuneSettings) -> None:
    write(settings.output_dir)
    with pytest.raises(ConfigError, match="cannot write in"):
        finetune(settings)
    assert settings.output_dir.read_text() == "mine"


def test_a_log_of_somebody_else_is_refused(settings: FinetuneSettings, tmp_path: Path) -> None:
    log = tmp_path / "logs" / "train_log.jsonl"
    write(log)
    with pytest.raises(ConfigError, match="is not a run's log"):
        finetune(replace(settings, log_dir=log.parent))
    assert log.read_text() == "mine"


def test_a_torn_line_of_a_killed_run_stays_a_line(settings: FinetuneSettings) -> None:
    log = settings.output_dir / "train_log.jsonl"
    log.parent.mkdir()
    log.write_text('{"step": 1, "loss": 2}\n{"step": 2, "lo')
    finetune(settings)
    lines = log.read_text().splitlines()
    assert lines[:2] == ['{"step": 1, "loss": 2}', '{"step": 2, "lo']
    assert lines[2].startswith('{"step": 1,')
