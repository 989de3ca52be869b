"""`moss gpu-check` runs the same check as `python -m moss_tp.gpu_check`."""

import json
from pathlib import Path

import click
from click.testing import CliRunner

from moss_tp.gpu_check.command import _parser
from serve_app.cli.gpu_check import command


def test_it_runs_parts_and_returns_their_status(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    arguments = ["--device", "cpu", "--only", "limits", "--out", str(out)]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    assert list(json.loads(out.read_text())["parts"]) == ["limits"]
    assert CliRunner().invoke(command, [*arguments, "--budget", "1"]).exit_code == 1


def test_wrong_usage() -> None:
    wrong = CliRunner().invoke(command, ["--device", "cpu", "--only", "limit"])
    assert wrong.exit_code == 2 and "there is no part limit" in wrong.output
    lost = CliRunner().invoke(command, ["--device", "cpu", "--out", "missing/gpu.json"])
    assert lost.exit_code == 2 and "missing/gpu.json cannot be written" in lost.output


def test_both_commands_have_the_same_flags() -> None:
    flags = {flag for action in _parser()._actions for flag in action.option_strings}
    own = {flag for parameter in command.params for flag in parameter.opts}
    texts = {action.dest: action.help for action in _parser()._actions}
    for parameter in command.params:
        assert isinstance(parameter, click.Option) and parameter.help == texts[str(parameter.name)]
    assert command.help and command.help.strip() == str(_parser().description).strip()
    assert flags - own == {"-h", "--help", "--start"}
    assert own <= flags
