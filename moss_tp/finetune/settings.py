"""The settings of a fine-tuning run, checked before anything is loaded."""

from dataclasses import dataclass
from math import inf
from pathlib import Path

from moss_tp.errors import ConfigError

_POSITIVE = (
    "epochs",
    "batch_size",
    "eval_batch_size",
    "gradient_accumulation",
    "max_seq_len",
    "save_step",
    "eval_step",
    "log_step",
    "max_steps",
)


@dataclass(frozen=True)
class FinetuneSettings:
    """Settings of one run. The defaults are MOSS's where it has them.

    `batch_size` is conversations per process. `warmup_rate` is a fraction of all steps. Steps are
    optimizer steps. `mask_human` turns the loss on user messages off, which MOSS has on.
    `served_history` presents earlier turns as serving does: their Results are `None`, and replies
    that depended on them have no loss. Raises ConfigError for settings that cannot work.
    """

    model: Path
    data_dir: Path
    output_dir: Path
    log_dir: Path | None = None
    epochs: int = 2
    batch_size: int = 4
    eval_batch_size: int = 4
    gradient_accumulation: int = 1
    learning_rate: float = 9e-6
    warmup_rate: float = 0.05
    weight_decay: float = 0.1
    adam_beta2: float = 0.999
    max_grad_norm: float = 1.0
    max_seq_len: int = 2048
    save_step: int = 3000
    eval_step: int = 1000
    log_step: int = 10
    seed: int = 42
    mixed_precision: str = "no"
    export_dtype: str = "bfloat16"
    gradient_checkpointing: bool = False
    mask_human: bool = False
    served_history: bool = False
    resume: bool = False
    max_steps: int | None = None

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, not {value}")
        for name, is_valid in self._checks().items():
            if not is_valid:
                raise ConfigError(f"{name} cannot be {getattr(self, name)}")
        self._check_data()

    def _checks(self) -> dict[str, bool]:
        return {
            "learning_rate": 0 < self.learning_rate < inf,
            "warmup_rate": 0 <= self.warmup_rate <= 1,
            "weight_decay": 0 <= self.weight_decay < inf,
            "adam_beta2": 0 <= self.adam_beta2 < 1,
            "max_grad_norm": self.max_grad_norm > 0,
        }

    def _check_data(self) -> None:
        train, val = self.data_dir / "train.jsonl", self.data_dir / "val.jsonl"
        if not train.exists():
            raise ConfigError(f"no train.jsonl in {self.data_dir}")
        for file in (train, val):
            if file.exists() and not file.is_file():
                raise ConfigError(f"{file} is not a file")
