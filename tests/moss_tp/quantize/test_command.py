"""`moss quantize`."""

from pathlib import Path

from click.testing import CliRunner

from moss_tp.quantize.command import command
from tests.moss_tp.quantize.tiny_run import make_settings


def test_it_writes_a_model_and_prints_a_report(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    arguments = [str(settings.model), str(settings.destination), "--device", "cpu"]
    arguments += ["--calibration", str(settings.calibration), "--group-size", "32"]
    result = CliRunner().invoke(command, [*arguments, "--bits", "8"])
    assert result.exit_code == 0, result.output
    assert "8 bits, groups of 32, rounded to nearest" in result.output
    assert f"written to {settings.destination}" in result.output
    again = CliRunner().invoke(command, arguments)
    assert again.exit_code == 1 and "exists: choose another destination" in again.output


def test_there_is_no_default_text(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    result = CliRunner().invoke(command, [str(settings.model), str(settings.destination)])
    assert result.exit_code == 2
    assert "--calibration FILE is missing" in result.output
    assert "there is no default" in " ".join(result.output.split())


def test_other_bits_are_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, [str(tmp_path), "x", "--bits", "3"])
    assert result.exit_code == 2 and "'3' is not one of '4', '8'" in result.output
