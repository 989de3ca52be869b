"""The protocol that runs a Batch on all ranks. The engine finds an executor by name.

The library brings `local`; the class of any other is an entry point of the group
`moss_tp.executors`. It takes a resolved EngineConfig, and constructing it loads the model on every
rank.
"""

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Protocol, cast

from moss_tp.engine.running.step import Step
from moss_tp.engine.scheduling.batch import Batch
from moss_tp.engine_config import EngineConfig
from moss_tp.errors import ConfigError
from moss_tp.sampling.row import SamplingRow

LOCAL = "local"
ENTRY_POINTS = "moss_tp.executors"


class Executor(Protocol):
    @property
    def num_blocks(self) -> int:
        """KV blocks that every rank has allocated."""
        ...

    @property
    def forward_s(self) -> float:
        """Seconds that rank 0 has spent in the model's forward pass, over all steps so far."""
        ...

    @property
    def late_step(self) -> str | None:
        """Why the running step may be stuck, while it takes much longer than such steps have; long
        before the group counts as lost. May be asked from any thread."""
        ...

    @property
    def max_in_flight(self) -> int:
        """Steps that may be submitted before the result of the first is waited for. With more than
        one, a step may have pending ids: see `Batch`."""
        ...

    def submit(self, batch: Batch, rows: Sequence[SamplingRow]) -> Step:
        """Starts one step on every rank, or runs it in `Step.result` if `max_in_flight` is 1.

        `rows` says how to sample the rows whose logits `batch` needs, in the same order. Results
        are waited for in the order of submission. Raises EngineDeadError.
        """
        ...

    def watch(self, on_death: Callable[[str], None]) -> None:
        """Has `on_death(reason)` called once, from any thread, when a rank is lost; immediately
        if one is already lost. There may be several watchers. An idle engine notices a lost rank
        this way.
        """
        ...

    def close(self) -> None:
        """Ends every rank. Idempotent; no process is left."""
        ...


MakeExecutor = Callable[[EngineConfig], Executor]


def find_executor(name: str) -> MakeExecutor:
    """The executor class called `name`. ConfigError when there is none.

    `local` is found in a checkout that is not installed, too.
    """
    if name == LOCAL:
        from moss_tp.engine.running.local_executor import LocalExecutor  # imports torch

        return LocalExecutor
    found = entry_points(group=ENTRY_POINTS)
    if name not in found.names:
        known = ", ".join(sorted({LOCAL, *found.names}))
        raise ConfigError(f"unknown executor {name!r}; there is {known}")
    return cast(MakeExecutor, found[name].load())
