"""The settings of a fine-tuning run, checked before anything is loaded."""

from dataclasses import dataclass
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
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.learning_rate <= 0 or not 0 <= self.warmup_rate <= 1:
            raise ConfigError("learning_rate must be positive and warmup_rate within 0 and 1")
        if not (self.data_dir / "train.jsonl").is_file():
            raise ConfigError(f"no train.jsonl in {self.data_dir}")
