"""What the `moss` command prints and returns, for every way in which a subcommand can end."""

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace

import click
import pytest

from moss_tp.errors import ConfigError
from serve_app.cli.main import SUBCOMMANDS, main


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs `moss fake` around a function: exit status, stdout and stderr."""
    module = ModuleType("fake_subcommand")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(SUBCOMMANDS, "fake", (module.__name__, "A fake."))

    def call(do: Callable[[], object], *arguments: str) -> tuple[int, str, str]:
        module.__dict__["command"] = click.command("fake")(do)
        monkeypatch.setattr(sys, "argv", ["moss", *(arguments or ("fake",))])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, shown.out, shown.err

    return call


def failing(error: BaseException) -> Callable[[], object]:
    def do() -> None:
        raise error

    return do


def leave() -> None:
    click.get_current_context().exit(3)


Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("result", [None, "text", SimpleNamespace()])
def test_a_command_that_returns_is_a_success(run: Run, result: object) -> None:
    assert run(lambda: result) == (0, "", "")


def test_a_status_is_passed_on(run: Run) -> None:
    assert run(leave) == (3, "", "")


def test_an_error_of_ours_is_one_line(run: Run) -> None:
    error = ConfigError("tp 3 does not divide\n  the heads")
    assert run(failing(error)) == (1, "", "moss: tp 3 does not divide the heads\n")


def test_a_usage_error_has_clicks_status(run: Run) -> None:
    assert run(failing(click.BadParameter("no port"))) == (2, "", "moss: Invalid value: no port\n")
    status, out, err = run(leave, "fake", "--nonsense")
    assert (status, out) == (2, "")
    assert err.startswith("moss: No such option")


@pytest.mark.parametrize("error", [click.Abort(), KeyboardInterrupt()])
def test_ctrl_c_is_silent(run: Run, error: BaseException) -> None:
    status, out, err = run(failing(error))
    assert (status, out, err.strip()) == (130, "", "")


def test_a_bug_keeps_its_traceback(run: Run) -> None:
    with pytest.raises(ZeroDivisionError):
        run(failing(ZeroDivisionError()))


def test_no_command_shows_the_help(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    status, out, err = run(leave, "--help")
    assert (status, err) == (0, "")
    assert "A fake." in out
    assert "[OPTIONS] COMMAND" in out
