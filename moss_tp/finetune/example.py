"""Builds the token ids and the loss mask of a conversation.

The ids are built as in serving: meta instruction and bodies are encoded separately, ids
concatenated. As in the published training, the loss is off on the meta instruction and on the
bodies of Results; markers and end tokens have it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from moss_tp.dialogue import (
    HUMAN,
    MOSS,
    NO_RESULTS,
    RESULTS,
    Encoder,
    Segment,
    encode_end,
    encode_opening,
)
from moss_tp.finetune.conversation import Conversation


@dataclass(frozen=True)
class MaskOptions:
    """Options beyond the published training; see FinetuneSettings."""

    mask_human: bool = False
    served_history: bool = False


@dataclass
class Example:
    """Token ids, for each whether predicting it has a loss, and how many turns they are."""

    ids: list[int] = field(default_factory=list)
    has_loss: list[bool] = field(default_factory=list)
    num_turns: int = 0

    def append(self, ids: Sequence[int], has_loss: bool) -> None:
        self.ids.extend(ids)
        self.has_loss.extend([has_loss] * len(ids))


def build_example(
    encoder: Encoder,
    conversation: Conversation,
    max_seq_len: int,
    options: MaskOptions = MaskOptions(),
) -> Example | None:
    """Ids and mask of as many whole turns as fit `max_seq_len`, None when the first does not."""
    example = Example()
    example.append(encoder.encode(conversation.meta_instruction), has_loss=False)
    for index, turn in enumerate(conversation.turns):
        is_last = index == len(conversation.turns) - 1
        if options.served_history and not is_last:
            encoded = _encode_turn(encoder, _without_results(turn), options, _has_results(turn))
        else:
            encoded = _encode_turn(encoder, turn, options, is_reply_masked=False)
        if len(example.ids) + len(encoded.ids) > max_seq_len:
            break
        example.ids += encoded.ids
        example.has_loss += encoded.has_loss
        example.num_turns += 1
    return example if example.num_turns else None


def _encode_turn(
    encoder: Encoder, turn: Sequence[Segment], options: MaskOptions, is_reply_masked: bool
) -> Example:
    example = Example()
    for segment in turn:
        is_masked = (segment.role == HUMAN and options.mask_human) or (
            segment.role == MOSS and is_reply_masked
        )
        example.append(encode_opening(encoder, segment.role), not is_masked)
        example.append(encoder.encode(segment.body), not is_masked and segment.role != RESULTS)
        example.append(encode_end(encoder, segment.role), not is_masked)
    return example


def _has_results(turn: Sequence[Segment]) -> bool:
    return any(segment.role == RESULTS and segment.body != NO_RESULTS for segment in turn)


def _without_results(turn: Sequence[Segment]) -> list[Segment]:
    return [replace(s, body=NO_RESULTS) if s.role == RESULTS else s for s in turn]
