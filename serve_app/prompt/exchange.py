"""One exchange of a dialogue as plain text: what a history is made of.

It is the same for a stored turn, a client's message list and the turn that is being generated. It
has no session, key or tokens.
"""

from dataclasses import dataclass
from typing import Literal

from moss_tp.dialogue import NO_COMMAND
from moss_tp.engine.outputs import FinishReason

# How a reply ended. "cancelled": a client stopped it and kept what had been told; "tool_calls": it
# waits for the results of a client's tools; "content_filter": the rest was refused by a hook.
TurnEnd = FinishReason | Literal["cancelled", "tool_calls", "content_filter"]


@dataclass(frozen=True)
class Exchange:
    """A user's text and the model's whole answer, without markers.

    `commands` are the calls that ran; `results` is the body of the Results segment, including
    its leading and trailing space or newline. A model without plugins leaves `thoughts`,
    `commands` and `results` empty.
    """

    user: str
    thoughts: str
    commands: str
    results: str
    reply: str


def shown_thoughts(thoughts: str) -> str:
    """What clients read of `thoughts`: nothing where they only say, as MOSS does, that there are
    none."""
    return "" if thoughts.strip() == NO_COMMAND else thoughts
