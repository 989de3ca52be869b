"""The collaborators of a reply, as protocols: prompt builder, model and plugins."""

from collections.abc import AsyncIterator, Collection, Sequence
from typing import Protocol

from moss_tp.engine.outputs import TokenDelta
from moss_tp.engine.request import EngineRequest
from plugins_svc.protocol.calls import Call
from plugins_svc.sdk.output import PluginOutput
from serve_app.prompt.exchange import Exchange
from serve_app.prompt.fit import Prompt


class Prompts(Protocol):
    """Builds prompts in the dialogue that the model was trained on."""

    eom_id: int  # the id that ends a reply

    def build(
        self,
        history: Sequence[Exchange],
        user: str,
        enabled: Collection[str],
        max_length: int,
        instructions: str = "",
        so_far: Exchange | None = None,
    ) -> Prompt:
        """The prompt of the first pass, such that prompt and completion fit into `max_length`.

        A client's own `instructions` follow the meta instruction and capability lines, neutralised;
        ContextLengthError if they take more than a quarter of `max_length`. With `so_far`, whose
        reply is missing, it is the prompt of that reply.

        Drops whole oldest exchanges to leave comfortable room, never the meta instruction. Raises
        ContextLengthError if even without history there is no room for a reply. May be called
        from any thread.
        """
        ...


class ChatModel(Protocol):
    """A model, in this process or behind a deployment handle."""

    def generate(self, request: EngineRequest, session_id: str) -> AsyncIterator[TokenDelta]:
        """The deltas of one request; closing or cancelling the iterator aborts it.

        If a stop id ends the request, the last delta's `token_ids` end with it. `session_id`
        names the chat, kept here or not, among those of its owner: a hint for routing to a
        replica that may have cached the prefix. Raises InvalidRequestError, ContextLengthError,
        QueueFullError, DeadlineExceededError or EngineDeadError.
        """
        ...


class PluginClient(Protocol):
    """Answers plugin calls. It may fail, and the caller handles that."""

    async def run(self, call: Call, timeout_s: float) -> PluginOutput:
        """The plugin's answer to `call`; an exception if there is none within `timeout_s`."""
        ...
