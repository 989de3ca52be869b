"""Prompts for models with plugins, as token ids: one for each of a turn's two passes.

Each piece of text is encoded separately and the ids are joined, so no text can become structure.
The second prompt repeats the first and its continuation id for id, so that it hits the prefix
cache. It bounds the length of a prompt; it does not use the store, the engine or plugins.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from moss_tp.dialogue import (
    END_TOKENS,
    MARKERS,
    NO_COMMAND,
    NO_RESULTS,
    Encoder,
    Segment,
    encode_end,
    encode_opening,
    encode_segment,
    find_role_marker,
    neutralise,
)
from plugins_svc.registry import capability_lines
from serve_app.prompt.exchange import Exchange
from serve_app.prompt.fit import MIN_REPLY_TOKENS, Prompt, fit_prompt


class TextCodec(Encoder, Protocol):
    """What a prompt builder needs from a tokenizer."""

    def decode(self, ids: Sequence[int], /) -> str:
        """Text of `ids` without special tokens."""
        ...


@dataclass(frozen=True)
class Thinking:
    """The output of the first pass: the thoughts, the Commands body and the ids of both.

    `token_ids` are a well-formed continuation of the prompt, up to `<eoc>` and its newline.
    """

    thoughts: str
    commands: str
    token_ids: list[int]


class PromptBuilder:
    """Builds prompts in the dialogue protocol of MOSS models with plugins.

    `meta_instruction` ends with a newline. The capability lines that follow it depend on the
    plugins of each chat and are added by `build`.
    """

    def __init__(self, tokenizer: TextCodec, meta_instruction: str) -> None:
        self._tokenizer = tokenizer
        self._meta_instruction = meta_instruction
        self.eoc_id = tokenizer.special_id(END_TOKENS["commands"])
        self.eom_id = tokenizer.special_id(END_TOKENS["moss"])
        self._eot_id = tokenizer.special_id(END_TOKENS["thoughts"])
        self.no_thinking = self._without_commands(NO_COMMAND)
        # The minimum that must fit after the first prompt: no thoughts, no plugins, a short reply.
        self.min_room = len(self.reply_prompt([], self.no_thinking, NO_RESULTS)) + MIN_REPLY_TOKENS

    def build(
        self,
        history: Sequence[Exchange],
        user: str,
        enabled: Collection[str],
        max_length: int,
        instructions: str = "",
        so_far: Exchange | None = None,
    ) -> Prompt:
        """See `Prompts.build`. The prompt ends where the model writes its Inner Thoughts."""
        tail = encode_segment(self._tokenizer, Segment("human", f" {neutralise(user)}"))
        tail += encode_opening(self._tokenizer, "thoughts")
        if so_far is not None:
            tail = self._encode_so_far(so_far)
        return fit_prompt(
            self._tokenizer.encode(self._meta_instruction + capability_lines(enabled)),
            self._tokenizer.encode(neutralise(instructions)),
            history,
            self._encode_exchange,
            tail,
            min_room=self.min_room if so_far is None else MIN_REPLY_TOKENS,
            max_length=max_length,
        )

    def read_thinking(self, generated_ids: Sequence[int]) -> Thinking:
        """Parses the output of a first pass, up to the marker of another role.

        If it did not end with `<eoc>`, or has such a marker, it has no commands.
        """
        ids = list(generated_ids)
        is_complete = ids[-1:] == [self.eoc_id]
        body = ids[:-1] if ids[-1:] in ([self.eoc_id], [self.eom_id]) else ids
        end = body.index(self._eot_id) if self._eot_id in body else len(body)
        thoughts, rest = self._decode(body[:end]), self._tokenizer.decode(body[end + 1 :])
        start = find_role_marker(thoughts)
        _, marker, commands = rest.partition(MARKERS["commands"])
        if not (is_complete and marker) or start is not None or has_left_thinking(rest):
            return self._without_commands(thoughts if start is None else thoughts[:start].rstrip())
        newline = self._tokenizer.encode("\n")
        return Thinking(thoughts, commands.removeprefix(" "), ids + newline)

    def with_commands(self, thinking: Thinking, commands: str) -> Thinking:
        """`thinking` with its Commands body replaced; the same object if the body is the same."""
        if commands == thinking.commands:
            return thinking
        ids = thinking.token_ids
        return self._thinking(thinking.thoughts, ids[: ids.index(self._eot_id)], commands)

    def reply_prompt(
        self, prompt_ids: Sequence[int], thinking: Thinking, results: str
    ) -> list[int]:
        """The second pass's prompt: ids up to where the model writes its reply."""
        return [
            *prompt_ids,
            *thinking.token_ids,
            *encode_segment(self._tokenizer, Segment("results", results)),
            *encode_opening(self._tokenizer, "moss"),
        ]

    def _thinking(self, thoughts: str, thought_ids: Sequence[int], commands: str) -> Thinking:
        ids = [
            *thought_ids,
            *encode_end(self._tokenizer, "thoughts"),
            *encode_segment(self._tokenizer, Segment("commands", f" {commands}")),
        ]
        return Thinking(thoughts, commands, ids)

    def _without_commands(self, thoughts: str) -> Thinking:
        thoughts = thoughts or NO_COMMAND
        ids = self._tokenizer.encode(f" {neutralise(thoughts)}")
        return self._thinking(thoughts, ids, NO_COMMAND)

    def _encode_exchange(self, exchange: Exchange) -> list[int]:
        """A past exchange. Its Results are left out, since they are untrusted text.

        An exchange with a model without plugins has no thoughts and no commands.
        """
        ids = self._encode_thinking(exchange, NO_RESULTS)
        reply = Segment("moss", f" {neutralise(exchange.reply)}")
        return ids + encode_segment(self._tokenizer, reply)

    def _encode_so_far(self, exchange: Exchange) -> list[int]:
        """The current exchange up to its reply. Who formatted its Results has neutralised them."""
        ids = self._encode_thinking(exchange, exchange.results)
        return ids + encode_opening(self._tokenizer, "moss")

    def _encode_thinking(self, exchange: Exchange, results: str) -> list[int]:
        segments = (
            Segment("human", f" {neutralise(exchange.user)}"),
            Segment("thoughts", f" {neutralise(exchange.thoughts or NO_COMMAND)}"),
            Segment("commands", f" {neutralise(exchange.commands or NO_COMMAND)}"),
            Segment("results", results),
        )
        return [i for segment in segments for i in encode_segment(self._tokenizer, segment)]

    def _decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(ids).removeprefix(" ")


def has_left_thinking(text: str) -> bool:
    """Whether the first pass has gone on to another role: `text` holds a marker, and not only that
    of Commands, once."""
    first = find_role_marker(text)
    if first is None:
        return False
    is_commands = text.startswith(MARKERS["commands"].rstrip(":"), first)
    return not is_commands or find_role_marker(text, first + 1) is not None
