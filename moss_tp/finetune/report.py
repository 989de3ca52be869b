"""Reports a run: loss and accuracy, the progress bar and the log file."""

import json
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]


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
    """A progress bar and a log file of one JSON line per `log`, on the main process only."""

    def __init__(self, log_dir: Path, num_steps: int, start: int, is_main: bool) -> None:
        self._file = None
        if is_main:
            log_dir.mkdir(parents=True, exist_ok=True)
            self._file = (log_dir / "train_log.jsonl").open("a", encoding="utf-8")
        self._bar = tqdm(
            total=num_steps, initial=start, disable=not is_main, desc="finetune", mininterval=1
        )
        self._started = time.monotonic()

    def advance(self) -> None:
        """Counts one optimizer step."""
        self._bar.update()

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
