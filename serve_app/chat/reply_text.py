"""The text of one choice's reply: cleans the engine's deltas, and adds up text and tokens."""

from moss_tp.engine.outputs import FinishReason, TokenDelta
from plugins_svc.protocol.citations import CitationFilter
from serve_app.chat.events import Delta
from serve_app.chat.role_markers import RoleMarkerFilter


class ReplyText:
    """Removes the space after the reply's marker, and citations of items that do not exist.

    The reply ends before the marker of any role: then `has_ended` is set and nothing more may be
    added. `num_items` is how many items may be cited; None keeps all citations. `finish_reason` is
    "length" until the reply ends otherwise, so that it holds for a reply that is cut off.
    """

    def __init__(self, choice: int, num_items: int | None) -> None:
        self._choice = choice
        self._citations = None if num_items is None else CitationFilter(num_items)
        self._markers = RoleMarkerFilter()
        self._pieces: list[str] = []
        self.has_begun = False
        self.finish_reason: FinishReason = "length"
        self.num_tokens = 0
        self.num_cached_tokens = 0

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
        self.num_cached_tokens = delta.num_cached_tokens
        text = delta.text if self.has_begun else delta.text.removeprefix(" ")
        self.has_begun = self.has_begun or bool(delta.text)
        if self._citations is not None:
            text = self._citations.feed(text)
        text = self._markers.feed(text)  # last, for a dropped citation joins what is around it
        if delta.finish_reason == "stop" or self.has_ended:
            self.finish_reason = "stop"
        self._pieces.append(text)
        return Delta(self._choice, text, delta.token_ids, delta.logprobs)

    def end(self) -> Delta | None:
        """The text that was held back as the possible start of a citation or a marker, if any."""
        rest = "" if self._citations is None else self._citations.end()
        rest = self._markers.feed(rest) + self._markers.end()
        if self.has_ended:
            self.finish_reason = "stop"
        if not rest:
            return None
        self._pieces.append(rest)
        return Delta(self._choice, rest, (), ())
