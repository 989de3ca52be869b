"""Prompts for models without plugins: no capability lines, no thoughts, commands or results."""

from collections.abc import Collection, Sequence

from moss_tp.dialogue import (
    END_TOKENS,
    Encoder,
    Segment,
    encode_opening,
    encode_segment,
    neutralise,
)
from serve_app.prompt.fit import MIN_REPLY_TOKENS, Prompt, fit_prompt
from serve_app.sessions.session import Turn


class PlainPromptBuilder:
    """Builds `<|Human|>: …<eoh>`, `<|MOSS|>: …<eom>` for one model; ids as in `PromptBuilder`."""

    def __init__(self, tokenizer: Encoder, meta_instruction: str) -> None:
        self._tokenizer = tokenizer
        self._meta_instruction = meta_instruction
        self.eom_id = tokenizer.special_id(END_TOKENS["moss"])

    def build(
        self, turns: Sequence[Turn], user: str, enabled: Collection[str], max_length: int
    ) -> Prompt:
        """See `Prompts.build`; of plugins such a model is told nothing, whatever is `enabled`."""
        tail = [*self._encode_human(user), *encode_opening(self._tokenizer, "moss")]
        return fit_prompt(
            self._tokenizer.encode(self._meta_instruction),
            turns,
            self._encode_turn,
            tail,
            min_room=MIN_REPLY_TOKENS,
            max_length=max_length,
        )

    def _encode_turn(self, turn: Turn) -> list[int]:
        reply = Segment("moss", f" {neutralise(turn.reply)}")
        return [*self._encode_human(turn.user), *encode_segment(self._tokenizer, reply)]

    def _encode_human(self, text: str) -> list[int]:
        return encode_segment(self._tokenizer, Segment("human", f" {neutralise(text)}"))
