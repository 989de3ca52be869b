"""What a saved state is: of which run and step, by which settings, and which files belong to it.

A manifest is written last, into a state that is still unnamed. It reads no tensor.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from moss_tp.errors import CheckpointError
from moss_tp.finetune.durable import files_in, fingerprint, write_json
from moss_tp.finetune.recipe import Recipe
from moss_tp.json_file import read_json

_NAME = "manifest.json"


@dataclass(frozen=True)
class Progress:
    """How far a run has come: its optimizer steps, the current epoch and batches done in it."""

    step: int = 0
    epoch: int = 0
    batch: int = 0


@dataclass(frozen=True)
class Manifest:
    """Describes one state."""

    run: str
    progress: Progress
    recipe: Recipe
    files: Mapping[str, str]  # each file's fingerprint

    @classmethod
    def read(cls, state: Path, step: int, num_processes: int) -> Self:
        """The manifest of a state. Raises CheckpointError unless the state is whole and of one
        step, in every process's part."""
        fields = read_json(state / _NAME)
        try:
            manifest = cls(
                fields["run"],
                Progress(**fields["progress"]),
                Recipe(**fields["recipe"]),
                dict(fields["files"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{state / _NAME} is not a manifest: {error!r}") from error
        if manifest.progress.step != step:
            raise CheckpointError(f"{state} is of step {manifest.progress.step} by its manifest")
        manifest._check_files(state)
        check_parts(state, manifest.run, step, num_processes)
        return manifest

    def _check_files(self, state: Path) -> None:
        for name, expected in self.files.items():
            file = state / name
            if not file.is_file():
                raise CheckpointError(f"{file} is missing")
            if fingerprint(file) != expected:
                raise CheckpointError(f"{file} is not the file that was saved at this step")


def write_manifest(state: Path, run: str, progress: Progress, recipe: Recipe) -> None:
    """Writes the manifest of all files that are in `state`."""
    files = {str(file.relative_to(state)): fingerprint(file) for file in files_in(state)}
    write_json(state / _NAME, asdict(Manifest(run, progress, recipe, files)))


def write_part(state: Path, run: str, step: int, process: int, num_processes: int) -> None:
    """Notes that a process has written its files of a state."""
    write_json(_part(state, process), _part_fields(run, step, process, num_processes))


def check_parts(state: Path, run: str, step: int, num_processes: int) -> None:
    """Raises CheckpointError unless each process has written its files of this step."""
    for process in range(num_processes):
        file = _part(state, process)
        if not file.is_file():
            raise CheckpointError(
                f"{file} is missing: the output directory must be shared by all processes"
            )
        if read_json(file) != _part_fields(run, step, process, num_processes):
            raise CheckpointError(f"{file} is of another run, step or number of processes")


def _part(state: Path, process: int) -> Path:
    return state / f"part-{process:05}.json"


def _part_fields(run: str, step: int, process: int, num_processes: int) -> dict[str, Any]:
    return {"run": run, "step": step, "process": process, "num_processes": num_processes}
