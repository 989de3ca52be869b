"""Prompts for models without plugins: no capability lines, thoughts, commands or results."""

from collections.abc import Collection, Sequence

from moss_tp.dialogue import (
    END_TOKENS,
    Encoder,
    Segment,
    encode_opening,
    encode_segment,
    neutralise,
)
from serve_app.prompt.exchange import Exchange
from serve_app.prompt.fit import MIN_REPLY_TOKENS, Prompt, fit_prompt


class PlainPromptBuilder:
    """Builds prompts of the form `<|Human|>: …<eoh>`, `<|MOSS|>: …<eom>`."""

    def __init__(self, tokenizer: Encoder, meta_instruction: str) -> None:
        self._tokenizer = tokenizer
        self._meta_instruction = meta_instruction
        self.eom_id = tokenizer.special_id(END_TOKENS["moss"])

    def build(
        self,
        history: Sequence[Exchange],
        user: str,
        enabled: Collection[str],
        max_length: int,
        instructions: str = "",
        so_far: Exchange | None = None,
    ) -> Prompt:
        """See `Prompts.build`. The model has no capability lines, and no Results: `enabled` and
        `so_far` are ignored."""
        tail = [*self._encode_user(user), *encode_opening(self._tokenizer, "moss")]
        return fit_prompt(
            self._tokenizer.encode(self._meta_instruction),
            self._tokenizer.encode(neutralise(instructions)),
            history,
            self._encode_exchange,
            tail,
            min_room=MIN_REPLY_TOKENS,
            max_length=max_length,
        )

    def _encode_exchange(self, exchange: Exchange) -> list[int]:
        reply = Segment("moss", f" {neutralise(exchange.reply)}")
        return [*self._encode_user(exchange.user), *encode_segment(self._tokenizer, reply)]

    def _encode_user(self, text: str) -> list[int]:
        return encode_segment(self._tokenizer, Segment("human", f" {neutralise(text)}"))
