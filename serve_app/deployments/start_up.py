"""How long each phase of a replica's start took."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class StartUp:
    """`phases` are seconds by name, in their order. `clock` returns seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.phases: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Around the phase `name`, whose time is what no phase within it takes."""
        began, inner = self._clock(), sum(self.phases.values())
        yield
        inner = sum(self.phases.values()) - inner
        self.phases[name] = self._clock() - began - inner
