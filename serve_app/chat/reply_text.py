"""The text of one choice's reply: cleans the engine's deltas, and adds up text and tokens."""

from moss_tp.engine.outputs import TokenDelta
from plugins_svc.protocol.citations import CitationFilter
from serve_app.chat.events import Delta
from serve_app.chat.resume import NOTHING_TOLD, Resume
from serve_app.chat.role_markers import RoleMarkerFilter
from serve_app.prompt.exchange import TurnEnd


class ReplyText:
    """Removes the space after the reply's marker, and citations of items that do not exist.

    The reply ends before the marker of any role: then `has_ended` is set and nothing more may be
    added. `num_items` is how many items may be cited; None keeps all citations. `finish_reason` is
    "length" until the reply ends otherwise, so that it holds for a reply that is cut off.

    What `resume` says was told has gone through the same states, and is not told again.
    """

    def __init__(self, choice: int, num_items: int | None, resume: Resume = NOTHING_TOLD) -> None:
        self._choice = choice
        self._citations = None if num_items is None else CitationFilter(num_items)
        self._markers = RoleMarkerFilter()
        self._pieces: list[str] = []
        self._num_to_skip = 0
        self.has_begun = False
        self.finish_reason: TurnEnd = "length"
        self.num_tokens = 0
        self.num_cached_tokens = 0
        self._first_run_cached = resume.num_cached_reply
        if resume.reply_ids:
            self.add(TokenDelta(resume.reply_ids, resume.engine_text, None, 0, 0))
        # More was told than that if the reply had come to its end.
        self._num_to_skip = max(0, resume.num_told_chars - len(self.text))

    @property
    def text(self) -> str:
        """The reply so far."""
        return "".join(self._pieces)

    @property
    def has_ended(self) -> bool:
        """Whether the model has gone on to another role."""
        return self._markers.has_ended

    def add(self, delta: TokenDelta) -> Delta:
        """The reply's next delta."""
        self.num_tokens += len(delta.token_ids)
        self.num_cached_tokens = self._cached(delta)
        text = delta.text if self.has_begun else delta.text.removeprefix(" ")
        self.has_begun = self.has_begun or bool(delta.text)
        if self._citations is not None:
            text = self._citations.feed(text)
        text = self._markers.feed(text)  # last, for a dropped citation joins what is around it
        if delta.finish_reason == "stop" or self.has_ended:
            self.finish_reason = "stop"
        return Delta(self._choice, self._untold(text), delta.token_ids, delta.logprobs, delta)

    def end(self) -> Delta | None:
        """The text that was held back as the possible start of a citation or a marker, if any."""
        rest = "" if self._citations is None else self._citations.end()
        rest = self._markers.feed(rest) + self._markers.end()
        if self.has_ended:
            self.finish_reason = "stop"
        untold = self._untold(rest)
        return Delta(self._choice, untold, (), ()) if untold else None

    def _untold(self, text: str) -> str:
        """Takes the reply's next text; returns what of it was not told before."""
        self._pieces.append(text)
        untold = text[self._num_to_skip :]
        self._num_to_skip -= len(text) - len(untold)
        return untold

    def _cached(self, delta: TokenDelta) -> int:
        """The first run of the pass says how much of its prompt was cached."""
        return delta.num_cached_tokens if self._first_run_cached is None else self._first_run_cached
