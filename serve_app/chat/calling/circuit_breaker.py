"""Refuses calls of a plugin that has stopped answering, so that not every turn waits for it.

        closed ── FAILURES in a row ──> open ── a pause ──> one call is tried
          ^                              ^                    │        │
          └──────── it is answered ──────┼────────────────────┘        │
                                         └── it fails: a longer pause ─┘

What a plugin answers, and whether that is an error, does not matter. It neither measures how long
a call takes nor knows what a plugin is.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from plugins_svc.sdk.errors import PluginError

FAILURES = 3
FIRST_PAUSE_S = 1.0
PAUSE_GROWTH = 2
MAX_PAUSE_S = 5.0  # Serve replaces a stopped replica in about ten seconds


class PluginUnreachableError(PluginError):
    """No replica of the plugin answered."""


class PluginPausedError(PluginError):
    """The breaker is open: the plugin was not even asked."""


class CircuitBreaker:
    """`clock` returns seconds. `on_change(is_open)` is called when it opens, and when it closes."""

    def __init__(self, clock: Callable[[], float], on_change: Callable[[bool], None]) -> None:
        self._clock = clock
        self._on_change = on_change
        self._num_failures = 0  # in a row
        self._pause_s = 0.0  # of an open breaker
        self._refuses_until = 0.0
        self._trial: object | None = None  # stands for the call that is tried

    @property
    def is_open(self) -> bool:
        return self._pause_s > 0

    @contextmanager
    def call(self) -> Iterator[None]:
        """Around a call. Raises PluginPausedError at once while the breaker is open.

        PluginUnreachableError from within is a failure. A TimeoutError or a cancellation tells
        nothing; anything else is an answer.
        """
        trial = self._admit()
        try:
            yield
        except PluginUnreachableError:
            self._fail(is_trial=trial is not None and trial is self._trial)
            raise
        except TimeoutError:
            raise
        except Exception:
            self._succeed()
            raise
        else:
            self._succeed()
        finally:
            if trial is self._trial:
                self._trial = None

    def _admit(self) -> object | None:
        """Something that stands for the call, if an open breaker tries it."""
        if not self.is_open:
            return None
        if self._trial is not None or self._clock() < self._refuses_until:
            raise PluginPausedError("the plugin has stopped answering")
        self._trial = object()
        return self._trial

    def _fail(self, is_trial: bool) -> None:
        self._num_failures += 1
        if is_trial:
            self._pause(min(PAUSE_GROWTH * self._pause_s, MAX_PAUSE_S))
        elif not self.is_open and self._num_failures >= FAILURES:
            self._pause(FIRST_PAUSE_S)
            self._on_change(True)

    def _pause(self, seconds: float) -> None:
        self._pause_s = seconds
        self._refuses_until = self._clock() + seconds

    def _succeed(self) -> None:
        was_open = self.is_open
        self._num_failures, self._pause_s, self._trial = 0, 0.0, None
        if was_open:
            self._on_change(False)
