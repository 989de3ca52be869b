"""The collaborators of a turn, known by shape only: who builds its prompt, who replies to it, who
generates tokens, who answers calls.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from typing import Protocol

from moss_tp.engine.outputs import TokenDelta
from moss_tp.sampling_params import SamplingParams
from plugins_svc.protocol.calls import Call
from plugins_svc.sdk.output import PluginOutput
from serve_app.chat.generation import Answer, Generation, ReplyDelta
from serve_app.prompt.fit import Prompt
from serve_app.sessions.session import Turn


class Prompts(Protocol):
    """Where a chat becomes the ids that a model continues, in the dialogue it was taught."""

    def build(
        self, turns: Sequence[Turn], user: str, enabled: Collection[str], max_length: int
    ) -> Prompt:
        """Ids up to where the model is to go on, for at most `max_length` ids of prompt and
        everything that follows it.

        Drops whole oldest turns to leave comfortable room, never the meta instruction; raises
        ContextLengthError when even without history there is no room for a reply. May be called
        from any thread.
        """
        ...


class ReplyGenerator(Protocol):
    """Who makes a turn's reply, in as many passes as the dialogue has."""

    def run(self, generation: Generation) -> AsyncGenerator[ReplyDelta | Answer]:
        """Pieces of the reply, then the Answer. Closing it aborts whatever runs.

        Raises DeadlineExceededError when the deadline passes before the reply begins; after
        that it ends the reply, as its length does.
        """
        ...


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
