"""The settings of a quantization, checked before anything is loaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from moss_tp.config import ModelConfig
from moss_tp.errors import ConfigError
from moss_tp.quant_config import WORD_BITS
from moss_tp.quant_fields import BITS
from moss_tp.quantize.source import linear_shapes

DTYPES = ("bfloat16", "float32")
_NOT_WRITTEN = ("model", "destination", "calibration", "evaluate", "device")


@dataclass(frozen=True)
class QuantizeSettings:
    """`model` is a directory. `group_size` -1 makes all inputs of a linear one group. `samples`
    sequences of at most `length` tokens calibrate, `held_out` ones measure: of `calibration`, kept
    out there, or of `evaluate`. `dtype` is that of activations and products.

    Raises ConfigError for settings that cannot work.
    """

    model: Path
    destination: Path
    calibration: Path
    bits: int = 4
    group_size: int = 128
    act_order: bool = False
    sym: bool = False
    damping: float = 0.01
    evaluate: Path | None = None
    samples: int = 128
    length: int = 2048
    held_out: int = 32
    seed: int = 0
    dtype: str = "bfloat16"
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name, is_valid in self._checks().items():
            if not is_valid:
                raise ConfigError(f"{name} cannot be {getattr(self, name)}")
        for file in (self.calibration, self.evaluate):
            if file is not None and not file.exists():
                raise ConfigError(f"there is no {file}")
        if self.destination.resolve().is_relative_to(self.model.resolve()):
            raise ConfigError(f"{self.destination} is in the model's own directory")

    def _checks(self) -> dict[str, bool]:
        return {
            "bits": self.bits in BITS,
            "group_size": self.group_size == -1 or self.group_size > 0,
            "damping": 0 < self.damping < 1,
            "samples": self.samples > 0,
            "length": self.length > 1,
            "held_out": self.held_out > 0,
            "dtype": self.dtype in DTYPES,
            "device": self.device != "cuda" or torch.cuda.is_available(),
        }

    def check_model(self, config: ModelConfig) -> None:
        """Raises ConfigError for a model that is quantized, or whose linears the layout or the
        groups do not divide."""
        if config.quantization is not None:
            raise ConfigError(f"{self.model} is quantized already")
        for name, (inputs, outputs) in linear_shapes(config).items():
            if inputs % WORD_BITS or outputs % WORD_BITS:
                raise ConfigError(f"{name} is {outputs} x {inputs}: not multiples of {WORD_BITS}")
            if inputs % self.group_of(inputs):
                raise ConfigError(
                    f"the group size {self.group_size} does not divide the {inputs} inputs of "
                    f"{name}: choose another --group-size, or -1 for one group"
                )

    def group_of(self, inputs: int) -> int:
        """The size of the groups of a linear with so many inputs."""
        return inputs if self.group_size == -1 else self.group_size

    @property
    def written(self) -> dict[str, Any]:
        """What the result depends on, besides model and text."""
        return {n: value for n, value in vars(self).items() if n not in _NOT_WRITTEN} | {
            "device": torch.device(self.device).type
        }
