"""What is noted of one reply while it runs, from its events."""

from collections.abc import Callable

from serve_app.chat.completion import CompletionDelta, CompletionDone
from serve_app.chat.events import Delta, Done, PluginCall
from serve_app.watch import Watched


class ReplyRecord:
    """`clock` returns seconds; `between` gets the seconds before each token of some tokens, and
    their number."""

    def __init__(
        self,
        watched: Watched,
        clock: Callable[[], float],
        between: Callable[[float, int], None],
    ) -> None:
        self._watched = watched
        self._clock = clock
        self._between = between
        self._began = clock()
        self._last: dict[int, float] = {}  # when each choice got its last tokens
        self._num_done = 0
        self.is_left = False  # nobody reads its events any more
        self.calls: list[PluginCall] = []  # that have ended
        self.first_token_s: float | None = None
        self.finish_reason = ""
        self.prompt_tokens = 0
        self.completion_tokens = 0

    def note(self, event: object) -> None:
        """Any event of a reply or of a raw completion."""
        if isinstance(event, Delta | CompletionDelta):
            self._note_tokens(event.choice, len(event.token_ids))
        elif isinstance(event, Done | CompletionDone):
            self._num_done += 1
            if event.choice == 0:
                self.finish_reason = event.finish_reason
            self.prompt_tokens += event.usage.prompt_tokens
            self.completion_tokens += event.usage.completion_tokens
        elif isinstance(event, PluginCall) and event.state != "started":
            self.calls.append(event)

    @property
    def is_whole(self) -> bool:
        """Whether all choices have ended, and nobody else has to do so again."""
        return self._has_ended and not self._is_moved

    @property
    def _has_ended(self) -> bool:
        return self._num_done == self._watched.num_choices

    @property
    def _is_moved(self) -> bool:
        """Whether somebody else ends it: it has ended here, and could not be stored."""
        return self._has_ended and self.is_left and self._watched.stop is not None

    @property
    def is_cancelled(self) -> bool:
        """Whether its client left or stopped it. Ask once it does not run any more."""
        if self._is_moved:
            return False
        if self.is_whole:
            return self.finish_reason == "cancelled"
        stop = self._watched.stop
        return self.is_left if stop is None else stop.is_set()

    @property
    def seconds(self) -> float | None:
        """How long it has run; None if it began elsewhere."""
        return None if self._watched.is_resumed else self._clock() - self._began

    def _note_tokens(self, choice: int, num_tokens: int) -> None:
        if not num_tokens:
            return
        now = self._clock()
        last = self._last.get(choice)
        if last is not None:
            self._between((now - last) / num_tokens, num_tokens)
        elif not self._last and not self._watched.is_resumed:
            self.first_token_s = now - self._began
        self._last[choice] = now
