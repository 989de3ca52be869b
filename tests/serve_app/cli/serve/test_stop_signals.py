"""The first signal is noticed at the next poll, the second ends the process at once."""

import os
import signal
from collections.abc import Iterator
from typing import NoReturn

import pytest

from serve_app.cli.serve.stop_signals import SIGNALS, STOPPED_AT_ONCE, StopRequested, StopSignals
from serve_app.cli.terminal import Terminal


class ExitedError(Exception):
    """The process would be gone."""


@pytest.fixture(autouse=True)
def own_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def shown() -> Iterator[tuple[Terminal, int]]:
    """A terminal, and where to read what the user sees."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    yield Terminal(writing), reading
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_raised_by_check(shown: tuple[Terminal, int], number: int) -> None:
    terminal, reading = shown
    with StopSignals(terminal) as stop:
        stop.check()
        os.kill(os.getpid(), number)
        assert os.read(reading, 1000) == b"moss: stopping (once more to stop at once)\n"
        for _ in range(2):
            with pytest.raises(StopRequested):
                stop.check()


def test_the_second_signal_ends_the_process(
    shown: tuple[Terminal, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for no clean-up, which may be what hangs."""

    def leave(status: int) -> NoReturn:
        raise ExitedError(status)

    monkeypatch.setattr(os, "_exit", leave)
    with StopSignals(shown[0]):
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(ExitedError, match=str(STOPPED_AT_ONCE)):
            os.kill(os.getpid(), signal.SIGTERM)


def test_afterwards_signals_end_the_process_as_usual(shown: tuple[Terminal, int]) -> None:
    with StopSignals(shown[0]):
        assert all(callable(signal.getsignal(number)) for number in SIGNALS)
    assert [signal.getsignal(number) for number in SIGNALS] == [signal.SIG_DFL] * len(SIGNALS)


def test_a_request_to_stop_passes_handlers_of_errors() -> None:
    assert not issubclass(StopRequested, Exception)
