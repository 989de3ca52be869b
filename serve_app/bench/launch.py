"""Opens the engines of a benchmark: one at a time, in alternation."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from moss_tp.config import ModelConfig, resolve_model
from moss_tp.engine.build import build_engine
from moss_tp.engine.letters import Letters
from moss_tp.engine.llm_engine import LLMEngine
from moss_tp.engine_config import EngineConfig
from moss_tp.errors import ConfigError
from moss_tp.hardware.roofline import ITEM_BYTES, streamed_bytes

T = TypeVar("T")


@dataclass(frozen=True)
class EngineSpec:
    """`threads` is per rank; `settings` are further fields of EngineConfig."""

    model: str
    tp: int
    threads: int
    dtype: str
    settings: tuple[tuple[str, Any], ...] = ()
    device: str = "cpu"

    @property
    def name(self) -> str:
        return f"tp{self.tp}x{self.threads}" if self.device == "cpu" else f"tp{self.tp}"

    @property
    def is_dummy(self) -> bool:
        """Whether only the model's shape counts: neither weights nor a tokenizer are read."""
        return dict(self.settings).get("load_format") == "dummy"

    @property
    def directory(self) -> Path:
        return resolve_model(self.model, with_weights=not self.is_dummy)

    @property
    def model_config(self) -> ModelConfig:
        """With its LM head as it is when it is loaded: what a step reads."""
        model = ModelConfig.from_dir(self.directory)
        return model.with_rounded_head(self.config().lm_head_bits)

    @property
    def streamed_bytes(self) -> int:
        """What all ranks stream from host memory in a step."""
        offloaded, item = self.config().offload_bytes, ITEM_BYTES[self.dtype]
        return streamed_bytes(self.model_config, offloaded, item, self.tp)

    def config(self) -> EngineConfig:
        """Raises ConfigError for a setting that EngineConfig does not have, or of another type."""
        types = get_type_hints(EngineConfig)
        for field, value in self.settings:
            if field in types and not _is_a(value, types[field]):
                raise ConfigError(f"{field} cannot be {value!r}")
        try:
            return EngineConfig(
                model=str(self.directory),
                tp_size=self.tp,
                device=self.device,
                dtype=self.dtype,
                num_threads=self.threads,
                **dict(self.settings),
            )
        except TypeError as error:
            raise ConfigError(str(error)) from error


def _is_a(value: Any, kind: Any) -> bool:
    """Whether `value` is of a field's type, such as `int | None`. Whole numbers are floats, too;
    a bool is no number."""
    kinds = get_args(kind) or (kind,)
    return type(value) in kinds or (type(value) is int and float in kinds)


@contextmanager
def open_engine(spec: EngineSpec) -> Iterator[LLMEngine]:
    """An engine with local ranks, closed at the end of the block."""
    engine = build_engine(spec.config(), tokenizer=Letters() if spec.is_dummy else None)
    try:
        yield engine
    finally:
        engine.close()


def alternate(
    specs: Sequence[EngineSpec], repeats: int, measure: Callable[[LLMEngine], T]
) -> dict[str, list[T]]:
    """`repeats` measurements of every spec by its name, in the order A B A B, so that other
    load of the machine affects all of them equally. A single spec keeps its engine."""
    found: dict[str, list[T]] = {spec.name: [] for spec in specs}
    if len(specs) == 1:
        with open_engine(specs[0]) as engine:
            found[specs[0].name] = [measure(engine) for _ in range(repeats)]
        return found
    for _ in range(repeats):
        for spec in specs:
            with open_engine(spec) as engine:
                found[spec.name].append(measure(engine))
    return found
