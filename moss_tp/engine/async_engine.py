"""LLMEngine for asyncio: a thread steps it, requests are async iterators of deltas."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from moss_tp.engine.llm_engine import LLMEngine
from moss_tp.engine.outputs import TokenDelta
from moss_tp.sampling_params import SamplingParams


@dataclass(frozen=True)
class EngineStats:
    running: int
    waiting: int
    free_blocks: int
    num_blocks: int
    steps: int


class AsyncEngine:
    """INTERFACE FIRST; the body follows in minutes.

    `on_death(reason)` is called once, from the engine's thread, when a rank is lost.
    """

    def __init__(
        self, engine: LLMEngine, on_death: Callable[[str], None] | None = None
    ) -> None: ...

    @property
    def is_alive(self) -> bool: ...

    def stats(self) -> EngineStats: ...

    def generate(
        self, request_id: str, prompt_ids: Sequence[int], params: SamplingParams, salt: str = ""
    ) -> AsyncIterator[TokenDelta]:
        """Raises ContextLengthError, QueueFullError, InvalidRequestError, EngineDeadError."""
        ...

    def close(self) -> None: ...
