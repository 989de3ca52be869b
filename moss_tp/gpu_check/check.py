"""What a part of the check gets, and where it puts what it finds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from moss_tp.gpu_check.verdict import Verdict

Sink = Callable[[str, str, Any], None]


@dataclass(frozen=True)
class Plan:
    """`device` is "cuda", or "cpu" to try the check itself; `size` "tiny" takes small models and
    few repeats. `found` are the figures of earlier parts by part and name."""

    device: str
    size: Literal["moss", "tiny"]
    directory: Path
    found: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """A part's view. What it has found so far counts even if it does not come to its end."""

    plan: Plan
    sink: Sink

    @property
    def device(self) -> torch.device:
        return torch.device(self.plan.device)

    @property
    def is_full(self) -> bool:
        return self.plan.size == "moss"

    @property
    def directory(self) -> Path:
        """A folder of this run: parts share it."""
        return self.plan.directory

    def on_cpu(self) -> "Check":
        """The same for work that does not concern the GPU."""
        return replace(self, plan=replace(self.plan, device="cpu"))

    def found(self, part: str, name: str) -> Any:
        """Raises RuntimeError if an earlier part has not found it."""
        try:
            return self.plan.found[part][name]
        except KeyError as error:
            raise RuntimeError(f"the part {part} has not found {name}") from error

    def verdict(self, verdict: Verdict) -> None:
        self.sink("verdict", verdict.name, verdict)

    def figure(self, name: str, value: Any) -> None:
        """`value` is made of JSON's types."""
        self.sink("figure", name, value)
