"""Where a model is written so that a kill at any moment leaves a whole one, or none.

DST.partial/manifest.json       what is made: of which model, by which settings
DST.partial/activations-00003/  all that block 3 and later ones need of those before it
DST.partial/model/              the files so far, each whole; at the end it becomes DST
*.new                           what is being written; cleared at the next start
"""

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from moss_tp.errors import CheckpointError, ConfigError
from moss_tp.finetune.durable import files_in, remove, rename, sync, sync_tree, write_json
from moss_tp.json_file import read_json

MANIFEST = "quantize_manifest.json"
REPORT = "quantize_report.json"
_ACTIVATIONS = "activations-"


class Output:
    """The paths of one run. Use it inside `taken`."""

    def __init__(self, destination: Path) -> None:
        self.destination = destination
        self.partial = destination.with_name(f"{destination.name}.partial")
        self.model = self.partial / "model"

    @contextmanager
    def taken(self, manifest: dict[str, Any]) -> Iterator[None]:
        """Takes the directory for this run, or for going on with it.

        Raises ConfigError, having changed nothing, if it holds something else, if the run there
        has another manifest, or still goes on.
        """
        if self.destination.exists():
            raise ConfigError(f"{self.destination} exists: choose another destination")
        try:
            self.partial.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.partial, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise ConfigError(f"cannot write {self.partial}: {error.strerror}") from error
        try:
            self._lock(lock)
            self._check(manifest)
            self._begin(manifest)
            yield
        finally:
            os.close(lock)

    def _lock(self, descriptor: int) -> None:
        """The kernel drops it when its holder dies. Some network file systems have none."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(f"another run is writing in {self.partial}") from error
        except OSError:
            return

    def _check(self, manifest: dict[str, Any]) -> None:
        file = self.partial / "manifest.json"
        if not file.exists():
            if any(path.name != "manifest.json.new" for path in self.partial.iterdir()):
                raise ConfigError(f"{self.partial} holds files that this command did not make")
            return
        begun = read_json(file)
        changed = [
            f"{name} {begun.get(name)!r}, not {value!r}"
            for name, value in manifest.items()
            if begun.get(name) != value
        ]
        if changed:
            raise ConfigError(
                f"{self.partial} was begun with {'; '.join(changed)}: use the same, or remove it"
            )

    def _begin(self, manifest: dict[str, Any]) -> None:
        file = self.partial / "manifest.json"
        if not file.exists():
            new = file.with_name("manifest.json.new")
            write_json(new, manifest)
            rename(new, file)
        self.model.mkdir(exist_ok=True)
        for path in [*self.partial.glob("*.new"), *self.partial.glob("*.old")]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in self.model.glob("*.new"):
            path.unlink()

    @property
    def num_bytes(self) -> int:
        """Of what is there already."""
        return sum(file.stat().st_size for file in files_in(self.partial))

    def layer(self) -> int | None:
        """The block that comes next; None before the first activations are written."""
        found = [int(p.name.removeprefix(_ACTIVATIONS)) for p in self._activations()]
        return max(found, default=None)

    def _activations(self) -> list[Path]:
        return [
            p for p in self.partial.glob(f"{_ACTIVATIONS}*") if p.suffix not in (".new", ".old")
        ]

    def activations(self, layer: int) -> Path:
        return self.partial / f"{_ACTIVATIONS}{layer:05}"

    @contextmanager
    def new_activations(self, layer: int) -> Iterator[Path]:
        """A directory for those before `layer`, which has its name afterwards. Those of the block
        before are removed then."""
        final = self.activations(layer)
        new = final.with_name(f"{final.name}.new")
        new.mkdir()
        yield new
        sync_tree(new)
        rename(new, final)
        for other in self._activations():
            if other != final:
                remove(other)

    def write_tensors(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """A safetensors file of the model."""
        file = self.model / name
        new = file.with_name(f"{name}.new")
        save_file(dict(tensors), new, metadata={"format": "pt"})
        sync(new)
        rename(new, file)

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        file = self.model / name
        new = file.with_name(f"{name}.new")
        write_json(new, value)
        rename(new, file)

    @property
    def is_whole(self) -> bool:
        """Whether only the name is missing: the report is written last."""
        return (self.model / REPORT).exists()

    def finish(self) -> None:
        """Gives the model its name."""
        sync_tree(self.model)
        for path in self._activations():
            remove(path)
        if self.destination.exists():
            raise CheckpointError(f"{self.destination} was made by another: see {self.model}")
        rename(self.model, self.destination)
        shutil.rmtree(self.partial)
