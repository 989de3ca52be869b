"""The turn of a model without plugins: one pass, which is the reply. No session, no store."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from serve_app.chat.generation import Answer, Generation, ReplyDelta
from serve_app.chat.passes import stream_reply
from serve_app.chat.protocols import ChatModel


class OnePassGenerator:
    """Runs turns on one model; `eom_id` ends a reply. Holds nothing of any turn."""

    def __init__(self, model: ChatModel, eom_id: int) -> None:
        self._model = model
        self._eom_id = eom_id

    async def run(self, generation: Generation) -> AsyncGenerator[ReplyDelta | Answer]:
        """See `ReplyGenerator.run`; the Answer has a reply and nothing else."""
        pieces: list[str] = []
        prompt_ids = generation.prompt.token_ids
        async with aclosing(
            stream_reply(self._model, generation, 1, prompt_ids, self._eom_id)
        ) as reply:
            async for text in reply:
                pieces.append(text)
                yield ReplyDelta(text)
        yield Answer("", "", "", "".join(pieces))
