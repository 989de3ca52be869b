"""Reports a run: loss and accuracy, the progress bar and the log file."""

import json
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from moss_tp.errors import ConfigError


class Metric:
    """Mean loss and accuracy over the labels since the last `read`."""

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(3, dtype=torch.float64, device=device)  # loss, correct, labels

    def update(self, loss: Tensor, num_correct: Tensor, num_labels: Tensor) -> None:
        """Adds a batch: its mean loss, its number of correct predictions and of labels."""
        self._sums += torch.stack([loss.detach() * num_labels, num_correct, num_labels]).double()

    def read(self, accelerator: Accelerator) -> tuple[float, float]:
        """Loss and accuracy over all processes. Resets both."""
        loss, correct, labels = accelerator.reduce(self._sums, "sum").tolist()
        self._sums.zero_()
        return loss / max(labels, 1), correct / max(labels, 1)


class Report:
    """A progress bar and a log file of one JSON line per `log`, on the main process only.

    A log of an earlier run is continued. Raises ConfigError for a file that is no such log.
    """

    def __init__(self, log_dir: Path, num_steps: int, is_main: bool) -> None:
        self._file = _open_log(log_dir / "train_log.jsonl") if is_main else None
        self._bar = tqdm(total=num_steps, disable=not is_main, desc="finetune", mininterval=1)
        self._started = time.monotonic()

    def resume(self, step: int) -> None:
        """Starts the bar at a step."""
        self._bar.initial = self._bar.n = step

    def advance(self) -> None:
        """Counts one optimizer step."""
        self._bar.update()

    def say(self, text: str) -> None:
        """Prints a line for the user above the bar."""
        if self._file is not None:
            tqdm.write(text, file=sys.stderr)

    def log(self, step: int, **values: float) -> None:
        """Writes `values` to the log file and shows them on the bar."""
        if self._file is None:
            return
        shown = {name: float(f"{value:.4g}") for name, value in values.items()}
        self._bar.set_postfix(shown)
        line: dict[str, Any] = {"step": step, "seconds": round(time.monotonic() - self._started)}
        self._file.write(json.dumps(line | shown) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._bar.close()
        if self._file is not None:
            self._file.close()


def _open_log(file: Path) -> TextIO:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab+") as existing:
            existing.seek(0)
            text = existing.read()
            if text and not _is_log(text):
                raise ConfigError(f"{file} is not a run's log: choose another --log-dir")
            # The last line of a run that was killed may have no end.
            if text and not text.endswith(b"\n"):
                existing.write(b"\n")
        return file.open("a", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {file}: {error.strerror}") from error


def _is_log(text: bytes) -> bool:
    try:
        first = json.loads(text.split(b"\n")[0])
    except ValueError:
        return False
    return isinstance(first, dict) and "step" in first
