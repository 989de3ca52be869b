"""How `moss serve` ends in each case, and the command that it shows when it is ready."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from moss_tp.errors import ConfigError, MossError
from serve_app.cli.serve import command as module
from serve_app.cli.serve.local_server import StartError
from serve_app.cli.serve.stop_signals import StopRequested, StopSignals
from serve_app.cli.terminal import Terminal

LOG = Path("/data/serve.log")


@pytest.fixture
def screen(tmp_path: Path) -> Iterator[tuple[Terminal, Path]]:
    path = tmp_path / "screen"
    with path.open("wb") as file:
        yield Terminal(file.fileno()), path


def stop_of(terminal: Terminal, is_requested: bool) -> StopSignals:
    stop = StopSignals(terminal)
    stop._is_requested = is_requested
    return stop


def test_a_request_to_stop_is_no_error(screen: tuple[Terminal, Path]) -> None:
    terminal, path = screen
    with module._errors_in_one_line(terminal, LOG, stop_of(terminal, False)):
        raise StopRequested
    assert path.read_text() == "moss: stopped\n"


@pytest.mark.parametrize(
    "error", [ConfigError("a rank got the Ctrl-C"), RuntimeError("so did Ray")]
)
def test_after_a_request_to_stop_no_error_counts(
    screen: tuple[Terminal, Path], error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal, path = screen
    with module._errors_in_one_line(terminal, LOG, stop_of(terminal, True)):
        raise error
    assert path.read_text() == "moss: stopped\n"
    assert str(error) in capsys.readouterr().err, "the log has the traceback"


def test_an_error_of_ours_keeps_its_message(screen: tuple[Terminal, Path]) -> None:
    error = ConfigError("tp 3 does not divide the heads")
    stop = stop_of(screen[0], False)
    with pytest.raises(MossError) as raised, module._errors_in_one_line(screen[0], LOG, stop):
        raise error
    assert raised.value is error
    assert screen[1].read_text() == ""


def test_any_other_error_points_to_its_traceback(
    screen: tuple[Terminal, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        pytest.raises(StartError, match=r"^ZeroDivisionError; /data/serve\.log says more$"),
        module._errors_in_one_line(screen[0], LOG, stop_of(screen[0], False)),
    ):
        raise ZeroDivisionError("a bug")
    shown = capsys.readouterr().err
    assert "ZeroDivisionError: a bug" in shown
    assert sys._getframe().f_code.co_name in shown, "the traceback, not only the message"


def test_the_command_that_is_shown_is_whole() -> None:
    line = module._ready_line(17.4, "http://localhost:8000", requires_key=False)
    assert line.startswith("ready in 17 s; try: curl -X POST http://localhost:8000 -H ")
    assert line.endswith("""-d '{"prompt": "你是谁？"}'""")
