"""How `moss serve` ends in each case, and the command that it shows when it is ready."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from moss_tp.errors import ConfigError, MossError
from serve_app.cli.serve import command as module
from serve_app.cli.serve.local_server import StartError
from serve_app.cli.serve.stop_signals import StopRequested
from serve_app.cli.terminal import Terminal
from serve_app.settings import ServeSettings

LOG = Path("/data/serve.log")


@pytest.fixture
def screen(tmp_path: Path) -> Iterator[tuple[Terminal, Path]]:
    path = tmp_path / "screen"
    with path.open("wb") as file:
        yield Terminal(file.fileno()), path


@pytest.mark.parametrize("request_to_stop", [StopRequested(), SystemExit(1)])
def test_a_request_to_stop_is_no_error(
    screen: tuple[Terminal, Path], request_to_stop: BaseException
) -> None:
    terminal, path = screen
    with module._errors_in_one_line(terminal, LOG):
        raise request_to_stop
    assert path.read_text() == "moss: stopped\n"


def test_an_error_of_ours_keeps_its_message(screen: tuple[Terminal, Path]) -> None:
    error = ConfigError("tp 3 does not divide the heads")
    with pytest.raises(MossError) as raised, module._errors_in_one_line(screen[0], LOG):
        raise error
    assert raised.value is error
    assert screen[1].read_text() == ""


def test_any_other_error_points_to_its_traceback(
    screen: tuple[Terminal, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        pytest.raises(StartError, match=r"^ZeroDivisionError; /data/serve\.log says more$"),
        module._errors_in_one_line(screen[0], LOG),
    ):
        raise ZeroDivisionError("a bug")
    shown = capsys.readouterr().err
    assert "ZeroDivisionError: a bug" in shown
    assert sys._getframe().f_code.co_name in shown, "the traceback, not only the message"


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("127.0.0.1", "localhost"),
        ("0.0.0.0", "localhost"),
        ("::", "localhost"),
        ("192.0.2.7", "192.0.2.7"),
    ],
)
def test_the_command_that_is_shown_reaches_the_server(host: str, name: str) -> None:
    settings = ServeSettings(model="m", store="embedded")
    line = module._Server(settings, host, 8000, Path())._ready_line(17.4)
    assert line.startswith(f"ready in 17 s; try: curl -X POST http://{name}:8000 ")
