"""MOSS's dialogue protocol: the only place that spells its markers.

A turn is a row of segments, each `marker + body + end`, where marker is ordinary text and end a
single added token followed by a newline. Bodies are encoded on their own with special tokens off
and ids are concatenated, so no text that a user or a web page wrote can become structure.
It knows no tokenizer class and no session: whoever calls brings an encoder.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Role = Literal["human", "thoughts", "commands", "results", "moss"]

HUMAN, THOUGHTS, COMMANDS, RESULTS, MOSS = "human", "thoughts", "commands", "results", "moss"
MARKERS: dict[Role, str] = {
    "human": "<|Human|>:",
    "thoughts": "<|Inner Thoughts|>:",
    "commands": "<|Commands|>:",
    "results": "<|Results|>:",
    "moss": "<|MOSS|>:",
}
END_TOKENS: dict[Role, str] = {
    "human": "<eoh>",
    "thoughts": "<eot>",
    "commands": "<eoc>",
    "results": "<eor>",
    "moss": "<eom>",
}
NO_COMMAND = "None"
NO_RESULTS = f"\n{NO_COMMAND}\n"  # the body of Results when nothing ran

# `<|1|>` numbers a search result, and a chat may cite it; any other `<|` could open a marker.
_MARKER_OPENING = re.compile(r"<\|(?!\d+\|>)")
# A plugin's text may not number items or spell end tokens either.
_STRUCTURE = re.compile(rf"<(?=\||(?:{'|'.join(t[1:] for t in END_TOKENS.values())}))")


class Encoder(Protocol):
    """What this module needs of a tokenizer."""

    def encode(self, text: str) -> list[int]:
        """Ids of `text` as ordinary text: an added token's spelling in it stays text."""
        ...

    def special_id(self, token: str) -> int:
        """Id of an added token such as `<eoh>`; CheckpointError when there is none."""
        ...


@dataclass(frozen=True)
class Segment:
    """One part of a turn. `body` carries its own leading space or newline (`" 你好"`)."""

    role: Role
    body: str


def neutralise(text: str) -> str:
    """Untrusted text with every `<|` that could open a role marker broken up (`< |`)."""
    return _MARKER_OPENING.sub("< |", text)


def neutralise_output(text: str) -> str:
    """A plugin's text with every `<|` and every end token broken up (`< |`, `< eom>`).

    Stricter than `neutralise`: only the server numbers items, so `<|1|>` is broken up too.
    """
    return _STRUCTURE.sub("< ", text)


def encode_segment(encoder: Encoder, segment: Segment) -> list[int]:
    """Ids of marker, body, end token and the newline after it."""
    return [
        *encode_opening(encoder, segment.role),
        *encoder.encode(segment.body),
        *encode_end(encoder, segment.role),
    ]


def encode_opening(encoder: Encoder, role: Role) -> list[int]:
    """Ids of a role's marker: what a prompt ends with when the model is to write that role."""
    return encoder.encode(MARKERS[role])


def encode_end(encoder: Encoder, role: Role) -> list[int]:
    """Ids that close a segment: its end token and a newline."""
    return [encoder.special_id(END_TOKENS[role]), *encoder.encode("\n")]


def render(segments: Sequence[Segment], clean: Callable[[str], str] = str) -> str:
    """The segments as one string, for logs and golden tests; never encoded as a whole."""
    return "".join(f"{MARKERS[s.role]}{clean(s.body)}{END_TOKENS[s.role]}\n" for s in segments)


def parse_segment(text: str) -> Segment:
    """The segment a published conversation writes as one string.

    Raises ValueError for text that is not `marker body end newline`.
    """
    for role, marker in MARKERS.items():
        if text.startswith(marker):
            body = text[len(marker) :].removesuffix("\n")
            if not body.endswith(END_TOKENS[role]):
                break
            return Segment(role, body.removesuffix(END_TOKENS[role]))
    raise ValueError(f"not a segment of MOSS's dialogue: {text[:60]!r}")
