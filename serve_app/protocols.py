"""The collaborators of a turn: who generates tokens, who answers calls. Known by shape only."""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from moss_tp.engine.outputs import TokenDelta
from moss_tp.sampling_params import SamplingParams
from plugins_svc.calls import Call
from plugins_svc.results import PluginOutput


class ChatModel(Protocol):
    """A model behind whatever transport."""

    def generate(
        self,
        request_id: str,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        session_id: str,
    ) -> AsyncIterator[TokenDelta]:
        """Deltas of one reply; closing or cancelling the iterator aborts the generation.

        The last delta's `token_ids` end with the stop id, if one ended it. `session_id` is a
        hint for routing to a replica that may have the prefix cached. Raises ContextLengthError,
        QueueFullError or EngineDeadError.
        """
        ...


class PluginClient(Protocol):
    """Whoever answers calls. May fail or hang: the turn bounds it and makes it No result."""

    async def run(self, call: Call) -> PluginOutput:
        """The plugin's answer to `call`."""
        ...


class HealthProbe(Protocol):
    """What the health endpoints ask."""

    async def is_healthy(self) -> bool:
        """False when any rank is dead, or a step is stuck while work waits."""
        ...

    async def is_ready(self) -> bool:
        """False while the model loads or the server drains."""
        ...
