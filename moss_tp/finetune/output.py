"""The output directory of a run: what is the run's own there, and nobody else's.

    OUTPUT_DIR/model/finetune.json       marks the model as made by run `run`
    OUTPUT_DIR/state/                    locked by a running run
    OUTPUT_DIR/state/run.json            marks the state directory as run `run`'s
    OUTPUT_DIR/state/step-00000006/      a whole state
    OUTPUT_DIR/state/*.new, *.old        what is being written or removed; cleared at the next start

Only names of this kind in a marked directory are ever written, replaced or removed.
"""

import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moss_tp.errors import CheckpointError, ConfigError
from moss_tp.finetune.durable import rename, write_json
from moss_tp.json_file import read_json

_STATE_NAME = re.compile(r"step-(\d{8,})")
_LEFTOVER_NAME = re.compile(r"step-\d{8,}\.(new|old)|model\.new")
_MADE_BY = "moss finetune"


class OutputDir:
    """The paths of one run. Every process has one; only the main process changes the directory."""

    def __init__(self, root: Path) -> None:
        self.model = root / "model"
        self.state = root / "state"
        self.new_model = self.state / "model.new"
        self._marker = self.state / "run.json"

    @property
    def run(self) -> str:
        """The id of the run that owns the directory. Raises CheckpointError."""
        return _run_of(self._marker)

    def new_state(self, step: int) -> Path:
        """Where the state of `step` is written before it has its name."""
        return self.state / f"step-{step:08}.new"

    def states(self) -> list[Path]:
        """All whole states, the latest last."""
        if not self._marker.is_file():
            return []
        found = [path for path in self.state.iterdir() if _STATE_NAME.fullmatch(path.name)]
        return sorted(found, key=step_of)

    def mark_model(self, directory: Path) -> None:
        """Marks a model directory as this run's."""
        write_json(directory / "finetune.json", {"made_by": _MADE_BY, "run": self.run})

    @contextmanager
    def owned(self, *, resume: bool) -> Iterator[None]:
        """Takes the directory for a new run, or for the one to `resume`, and clears leftovers.

        Raises ConfigError, having changed nothing, if something there is not that run's or the run
        is still running; CheckpointError if there is nothing to resume.
        """
        try:
            self._check(resume)
            self.state.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.state, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise ConfigError(f"cannot write in {self.state}: {error.strerror}") from error
        try:
            self._take(lock, resume)
            yield
        finally:
            os.close(lock)

    def _take(self, lock: int, resume: bool) -> None:
        try:
            self._lock(lock)
            self._check(resume)  # again: another run may have come and gone since
            self._mark()
            self._clear()
        except OSError as error:
            raise ConfigError(f"cannot write in {self.state}: {error.strerror}") from error

    def _check(self, resume: bool) -> None:
        for directory in (self.state, self.model):
            if directory.is_symlink():  # nothing could be renamed across file systems
                raise ConfigError(
                    f"{directory} is a symbolic link, not a directory: choose another --output-dir"
                )
        states = self.states()
        if resume and not states:
            raise CheckpointError(f"nothing to resume in {self.state}")
        if states and not resume:
            raise ConfigError(
                f"{self.state} holds step {step_of(states[-1])} of an earlier run: continue it "
                "with --resume, or choose another --output-dir"
            )
        if self._marker.is_file():
            _ = self.run  # raises for somebody else's file
        elif _has_others(self.state, self._marker.with_suffix(".json.new")):
            raise ConfigError(_NOT_OWN.format(self.state))
        if _has_others(self.model) and not (resume and self.owns_model()):
            raise ConfigError(_NOT_OWN.format(self.model))

    def owns_model(self) -> bool:
        """Whether this run has made the model directory that is there."""
        marker = self.model / "finetune.json"
        return marker.is_file() and _run_of(marker) == self.run

    def _mark(self) -> None:
        if self._marker.is_file():
            return
        new = self._marker.with_suffix(".json.new")
        write_json(new, {"made_by": _MADE_BY, "run": uuid.uuid4().hex})
        rename(new, self._marker)

    def _lock(self, descriptor: int) -> None:
        """The kernel drops the lock when its holder dies. Some network file systems have none."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(f"another run is writing in {self.state}") from error
        except OSError:
            return

    def _clear(self) -> None:
        for path in self.state.iterdir():
            if _LEFTOVER_NAME.fullmatch(path.name):
                shutil.rmtree(path)


_NOT_OWN = (
    "{} holds files that this run did not make, and is left as it is: choose another --output-dir"
)


def check_apart(root: Path, base_model: Path) -> None:
    """Raises ConfigError for an output directory where the base model could be overwritten."""
    output, base = root.resolve(), base_model.resolve()
    targets = (output / "model", output / "state")
    is_around = base.parent == output or any(base.is_relative_to(target) for target in targets)
    if is_around or output.is_relative_to(base):
        raise ConfigError(
            f"the output directory {root} is not apart from the base model {base_model}: "
            "choose another --output-dir"
        )


def step_of(state: Path) -> int:
    """The step in the name of a state's directory."""
    return int(state.name.removeprefix("step-"))


def _run_of(marker: Path) -> str:
    fields = read_json(marker)
    if fields.get("made_by") != _MADE_BY or not isinstance(fields.get("run"), str):
        raise CheckpointError(f"{marker} is not a marker of {_MADE_BY}")
    return str(fields["run"])


def _has_others(directory: Path, *own: Path) -> bool:
    """Whether there is anything but a directory with only `own` in it, or nothing."""
    if not directory.exists():
        return False
    return not directory.is_dir() or bool(set(directory.iterdir()) - set(own))
