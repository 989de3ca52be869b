"""One turn's generation as data: what it needs, the pieces it tells, what it wrote in the end.

The same for both of MOSS's dialogues; a dialogue without thoughts or commands leaves them empty.
"""

from dataclasses import dataclass

from moss_tp.sampling_params import SamplingParams
from serve_app.prompt.fit import Prompt


@dataclass(frozen=True)
class Generation:
    """What every pass of one turn needs. `deadline` is in `time.monotonic` seconds."""

    request_id: str
    session_id: str
    prompt: Prompt
    max_length: int
    params: SamplingParams
    enabled: frozenset[str]
    deadline: float


@dataclass(frozen=True)
class ReplyDelta:
    """A piece of the reply, never empty."""

    text: str


@dataclass(frozen=True)
class Answer:
    """All that a turn wrote, as a Turn stores it."""

    thoughts: str
    commands: str
    results: str
    reply: str
