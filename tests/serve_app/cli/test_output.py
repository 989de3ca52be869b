"""Where a command writes: the terminal, its log, and directories that it can use."""

import os
import stat
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from moss_tp.errors import ConfigError
from serve_app.cli.directory import make_directory
from serve_app.cli.options import with_options
from serve_app.cli.terminal import Terminal, quiet_terminal


def test_lines_of_libraries_go_to_the_log_and_ours_to_the_screen(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    log.write_text("of the last run\n")
    with quiet_terminal(log) as terminal:
        terminal.say("starting 你好")
        os.write(1, b"from C\n")
        print("from Python", file=sys.__stderr__, flush=True)
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "moss: starting 你好\nafter\n"
    assert log.read_text() == "of the last run\nfrom C\nfrom Python\n"


def test_the_screen_is_restored_after_an_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    num_open = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(ZeroDivisionError), quiet_terminal(tmp_path / "log"):
        raise ZeroDivisionError
    os.write(1, b"out\n")
    assert capfd.readouterr().out == "out\n"
    assert len(list(Path("/proc/self/fd").iterdir())) == num_open


def test_a_closed_terminal_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    Terminal(writing).say("this is not read")
    os.close(writing)
    Terminal(writing).say("nor this")


def test_time_counts_from_the_start_of_the_process() -> None:
    first = Terminal(2).elapsed_s
    assert 0 < first < Terminal(2).elapsed_s


def test_a_directory_is_made_for_this_user_only(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "b"
    for _ in range(2):
        make_directory(directory)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert list(directory.iterdir()) == []


def test_a_directory_that_cannot_be_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for directory in (file, file / "below"):
        with pytest.raises(ConfigError, match=f"cannot write in {directory}: "):
            make_directory(directory)


def test_shared_options_are_listed_in_their_order() -> None:
    @click.command()
    @with_options(click.option("--first"), click.option("--second"))
    @click.option("--third")
    def command(first: str, second: str, third: str) -> None:
        click.echo(f"{first} {second} {third}")

    assert [param.name for param in command.params] == ["first", "second", "third"]
    shown = CliRunner().invoke(command, ["--second", "2", "--first", "1", "--third", "3"])
    assert shown.output == "1 2 3\n"
