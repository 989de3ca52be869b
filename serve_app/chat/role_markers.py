"""Ends a reply before the marker of a role, which a model may write as ordinary text.

At high temperatures a model goes on with the next segment of the dialogue. Deltas may cut a marker
anywhere, so text that may become one is held back. It knows no tokens.
"""

from moss_tp.dialogue import find_marker_beginning, find_role_marker


class RoleMarkerFilter:
    """The state of one reply. `has_ended` is set once a marker was found."""

    def __init__(self) -> None:
        self._held = ""
        self.has_ended = False

    def feed(self, text: str) -> str:
        """Takes the next piece of the reply; returns the text that can be sent now, maybe none."""
        if self.has_ended:
            return ""
        text = self._held + text
        end = find_role_marker(text)
        self.has_ended = end is not None
        shown = text[: find_marker_beginning(text) if end is None else end]
        self._held = "" if self.has_ended else text[len(shown) :]
        return shown

    def end(self) -> str:
        """The text still held back at the end of the reply; it is no marker."""
        held, self._held = self._held, ""
        return held
