"""What a run is made of, so that a state is never continued as another run's."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from moss_tp.config import ModelConfig
from moss_tp.errors import ConfigError
from moss_tp.finetune.settings import FinetuneSettings

# A state holds what these have led to, or is restored with their values.
_FIXED = (
    "seed",
    "batch_size",
    "gradient_accumulation",
    "learning_rate",
    "weight_decay",
    "adam_beta2",
    "mixed_precision",
    "export_dtype",
    "mask_human",
    "served_history",
)
_FREE = ("epochs", "max_steps", "warmup_rate", "max_grad_norm")
_DIGEST_LENGTH = 12


@dataclass(frozen=True)
class Recipe:
    """A state fits only runs with the same `fixed` parts; the `free` ones may change where a run
    resumes, and take effect from there."""

    fixed: Mapping[str, Any]
    free: Mapping[str, Any]

    @classmethod
    def of(
        cls, settings: FinetuneSettings, model: ModelConfig, data_digest: str, num_processes: int
    ) -> Self:
        """The recipe of a run with these settings; `data_digest` covers the training data."""
        fixed = {name: getattr(settings, name) for name in _FIXED}
        fixed["num_processes"] = num_processes
        fixed["max_seq_len"] = min(settings.max_seq_len, model.max_position_embeddings)
        fixed["model"] = hashlib.sha256(repr(model).encode()).hexdigest()[:_DIGEST_LENGTH]
        fixed["training_data"] = data_digest[:_DIGEST_LENGTH]
        return cls(fixed, {name: getattr(settings, name) for name in _FREE})

    def changes(self, other: "Recipe") -> list[str]:
        """The free parts that `other` changes, for the user. Raises ConfigError for fixed ones."""
        if changed := _changes(self.fixed, other.fixed):
            raise ConfigError(
                f"the run to resume has {', '.join(changed)}: resume it with the same"
            )
        return _changes(self.free, other.free)


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return [
        f"{name} {before.get(name)} instead of {value}"
        for name, value in after.items()
        if before.get(name) != value
    ]
