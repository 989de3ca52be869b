"""Who runs a Batch on all ranks. The engine sees only this Protocol and finds it by name.

An executor's class is an entry point of the group `moss_tp.executors` and takes a resolved
EngineConfig; constructing it loads the model on every rank.
"""

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Protocol, cast

from moss_tp.engine.running.batch import Batch
from moss_tp.engine_config import EngineConfig
from moss_tp.errors import ConfigError
from moss_tp.sampling.row import SampledToken, SamplingRow

ENTRY_POINTS = "moss_tp.executors"


class Executor(Protocol):
    @property
    def num_blocks(self) -> int:
        """KV blocks that every rank has allocated."""
        ...

    def execute(self, batch: Batch, rows: Sequence[SamplingRow]) -> list[SampledToken]:
        """One step on every rank: a token for each row whose logits `batch` wants.

        `rows` says how to sample them, in the same order. Raises EngineDeadError when a rank is
        gone or hung; the executor is of no more use then.
        """
        ...

    def watch(self, on_death: Callable[[str], None]) -> None:
        """Has `on_death(reason)` called once, from any thread, when a rank is lost.

        That is how an idle engine learns of it; at once if it already happened.
        """
        ...

    def close(self) -> None:
        """Ends every rank. Idempotent; nothing is left behind."""
        ...


def create_executor(name: str, config: EngineConfig) -> Executor:
    """The executor registered as `name`, started. ConfigError when there is none."""
    found = entry_points(group=ENTRY_POINTS)
    if name not in found.names:
        known = ", ".join(sorted(found.names))
        raise ConfigError(f"unknown executor {name!r}; there is {known}")
    make = cast(Callable[[EngineConfig], Executor], found[name].load())
    return make(config)
