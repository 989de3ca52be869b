"""MOSS's dialogue protocol: the only place that spells its markers and end tokens.

A turn is a sequence of segments, each `marker + body + end`. The marker is ordinary text, the end
is one added token and a newline. Bodies are encoded on their own with special tokens off, and ids
are concatenated, so text from a user or a web page cannot become structure. It depends on no
session and no tokenizer class: the caller passes an encoder.
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
NO_RESULTS = f"\n{NO_COMMAND}\n"  # the body of Results when no command ran

# Any `<|` could open a forged marker, except in `<|1|>`, the number of a search result.
_MARKER_OPENING = re.compile(r"<\|(?!\d+\|>)")
_NAMES = [marker.removeprefix("<|").removesuffix("|>:") for marker in MARKERS.values()]
_GAP = r"\s{0,4}"  # a model may space a marker in its own way


def _marker_parts(name: str) -> list[str]:
    """Patterns of the pieces of a role's marker, without its colon."""
    letters = [r"\s{1,4}" if letter == " " else re.escape(letter) for letter in name]
    return ["<", r"\|", _GAP, *letters, _GAP, r"\|", ">"]


def _prefix_of(parts: Sequence[str]) -> str:
    """A pattern of every beginning of `parts`, the whole left out."""
    pattern = ""
    for part in reversed(parts[:-1]):
        pattern = f"{part}(?:{pattern})?"
    return pattern


_ROLE_MARKER = re.compile("|".join("".join(_marker_parts(name)) for name in _NAMES))
_ROLE_MARKER_BEGINNING = re.compile(
    rf"(?:{'|'.join(_prefix_of(_marker_parts(name)) for name in _NAMES)})\Z"
)
# A plugin's text may not number items or spell end tokens either.
_STRUCTURE = re.compile(rf"<(?=\||(?:{'|'.join(t[1:] for t in END_TOKENS.values())}))")


class Encoder(Protocol):
    """The part of a tokenizer that this module uses."""

    def encode(self, text: str) -> list[int]:
        """Ids of `text` as ordinary text: an added token's spelling in it stays text."""
        ...

    def special_id(self, token: str) -> int:
        """Id of an added token such as `<eoh>`; CheckpointError when there is none."""
        ...


@dataclass(frozen=True)
class Segment:
    """One part of a turn. `body` includes its leading space or newline (`" 你好"`)."""

    role: Role
    body: str


def neutralise(text: str) -> str:
    """Untrusted `text` with every `<|` that could open a role marker changed to `< |`."""
    return _MARKER_OPENING.sub("< |", text)


def neutralise_output(text: str) -> str:
    """A plugin's text with every `<|` and every end token broken up (`< |`, `< eom>`).

    Stricter than `neutralise`: only the server numbers items, so `<|1|>` is broken up too.
    """
    return _STRUCTURE.sub("< ", text)


def find_role_marker(text: str, start: int = 0) -> int | None:
    """Where the first marker of any role begins in generated `text`, at `start` or later.

    The colon may be missing, and there may be white space around the name.
    """
    found = _ROLE_MARKER.search(text, start)
    return None if found is None else found.start()


def find_marker_beginning(text: str) -> int:
    """Where the end of `text` that may become a role marker begins; its length if none may."""
    found = _ROLE_MARKER_BEGINNING.search(text)
    return len(text) if found is None else found.start()


def encode_segment(encoder: Encoder, segment: Segment) -> list[int]:
    """Ids of the segment's marker, body, end token and newline."""
    return [
        *encode_opening(encoder, segment.role),
        *encoder.encode(segment.body),
        *encode_end(encoder, segment.role),
    ]


def encode_opening(encoder: Encoder, role: Role) -> list[int]:
    """Ids of a role's marker. A prompt ends with it to make the model write that role."""
    return encoder.encode(MARKERS[role])


def encode_end(encoder: Encoder, role: Role) -> list[int]:
    """Ids of a role's end token and the newline after it."""
    return [encoder.special_id(END_TOKENS[role]), *encoder.encode("\n")]


def render(segments: Sequence[Segment], clean: Callable[[str], str] = str) -> str:
    """The segments as one string, for logs and tests. Never encode it as a whole."""
    return "".join(f"{MARKERS[s.role]}{clean(s.body)}{END_TOKENS[s.role]}\n" for s in segments)


def parse_segment(text: str) -> Segment:
    """The inverse of `render` for one segment, as published conversations store it.

    Raises ValueError for text that is not marker, body, end token, optional newline.
    """
    for role, marker in MARKERS.items():
        if text.startswith(marker):
            body = text[len(marker) :].removesuffix("\n")
            if not body.endswith(END_TOKENS[role]):
                break
            return Segment(role, body.removesuffix(END_TOKENS[role]))
    raise ValueError(f"not a segment of MOSS's dialogue: {text[:60]!r}")
