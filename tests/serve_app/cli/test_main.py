"""The `moss` command: help loads nothing heavy; an error is one line and an exit status."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from serve_app.cli.main import SUBCOMMANDS, moss
from tests.support.moss_command import run_moss

ROOT = Path(__file__).parents[3]


def test_help_lists_all_commands_and_imports_none() -> None:
    code = (
        "import sys; from serve_app.cli.main import main\ntry: main()\nfinally: print(*sys.modules)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code, "--help"], capture_output=True, text=True, timeout=60
    ).stdout
    *_, modules = shown.splitlines()
    assert all(f"  {name} " in shown for name in SUBCOMMANDS)
    assert not {"torch", "ray", "redis", "transformers"} & set(modules.split())


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_every_command_loads_and_has_help(name: str) -> None:
    command = moss.get_command(moss.make_context("moss", [name]), name)
    assert command is not None
    assert command.help


def test_version() -> None:
    shown = run_moss("--version")
    assert shown.returncode == 0
    assert shown.stdout.startswith("moss, version 0.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serf"], "No such command 'serf'"),
        (["serve", "--tp", "two"], "'two' is not a valid integer range"),
        (["serve", "--tp", "0"], "0 is not in the range x>=1"),
        (["serve", "--port", "99999"], "99999 is not in the range"),
        (["serve", "--device", "tpu"], "'tpu' is not one of 'cpu', 'cuda'"),
        (["serve", "--dtype", "int8"], "'int8' is not one of"),
        (["serve", "--model"], "requires an argument"),
        (["plugin", "run", "compiler", "x"], "'compiler' is not one of"),
    ],
)
def test_a_usage_error_is_one_line(arguments: list[str], message: str) -> None:
    shown = run_moss(*arguments)
    assert shown.returncode == 2
    assert shown.stdout == ""
    assert shown.stderr.count("\n") == 1
    assert shown.stderr.startswith("moss: ")
    assert message in shown.stderr


def test_plugin_run_prints_the_result() -> None:
    assert run_moss("plugin", "run", "calculator", "5^3").stdout == "'125'\n"


def test_plugin_run_fails_without_a_result() -> None:
    shown = run_moss("plugin", "run", "calculator", "__import__('os')")
    assert (shown.stdout, shown.returncode) == ("'No result.'\n", 1)


def test_plugin_run_without_a_back_end() -> None:
    shown = run_moss("plugin", "run", "text_to_image", "a cat")
    assert shown.returncode == 1
    assert shown.stderr == "moss: no back end for plugin 'text_to_image'\n"


def test_plugin_run_names_the_missing_flag() -> None:
    shown = run_moss("plugin", "run", "web_search", "x")
    assert shown.returncode == 1
    assert "give --documents DIR" in shown.stderr


def test_the_default_port_is_that_of_mosss_demo() -> None:
    assert "[default: 19324;" in run_moss("serve", "--help").stdout
    assert "[default: http://localhost:19324]" in run_moss("chat", "--help").stdout


def test_make_serve_passes_port_model_and_tp() -> None:
    changed = ("PORT=8000", "MODEL=/models/moss", "TP=4")
    for arguments, flags in {
        (): '--port "19324" --tp "2"',
        changed: '--port "8000" --tp "4" --model "/models/moss"',
    }.items():
        make = ["make", "--dry-run", "--always-make", "--no-print-directory", "serve", *arguments]
        shown = subprocess.run(
            make,
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=True,
            env={"PATH": os.environ["PATH"]},
        )
        assert shown.stdout.rstrip().endswith(f"moss serve {flags}")
