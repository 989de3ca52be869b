"""`moss bench quality`, from flags to a table."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from moss_tp.errors import ConfigError
from moss_tp.quantize.run import quantize_model
from serve_app.cli.bench.command import command
from tests.moss_tp.quantize.tiny_run import make_settings


def rows(*arguments: object) -> list[list[str]]:
    """The table's cells, without its head."""
    result = CliRunner().invoke(command, ["quality", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    lines = [line for line in result.output.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]


def test_a_quantized_model_has_the_figures_of_its_report(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    settings = make_settings(tmp_path, evaluate=settings.calibration, samples=20, held_out=4)
    report = quantize_model(settings, is_shown=False)
    flags = ("--model", settings.model, "--against", settings.destination, "--dtype", "float32")
    found = rows(*flags, "--text", settings.evaluate, "--samples", 4)
    assert [row[0] for row in found] == ["reference", str(settings.destination)]
    assert float(found[0][1]) == pytest.approx(report["source"]["perplexity"], rel=1e-3)
    assert float(found[1][2]) == pytest.approx(report["quantized"]["kl"], rel=1e-2)
    # Control: another number of samples is another text.
    assert rows(*flags, "--text", settings.evaluate, "--samples", 3)[0][1] != found[0][1]


def test_a_model_against_itself(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    flags = ("--model", settings.model, "--dtype", "float32", "--text", settings.calibration)
    itself = rows(*flags, "--samples", 2)[1]
    assert itself[0] == str(settings.model)
    assert itself[2:] == ["0.000000", "100.000%"]
    rounded = rows(*flags, "--samples", 2, "--kv-cache-dtype", "int8")[1]
    assert float(rounded[2]) > 0


def test_text_that_is_not_there(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    empty = tmp_path / "empty.txt"
    empty.touch()
    with pytest.raises(ConfigError, match="too little text"):
        rows("--model", settings.model, "--text", empty)
    with pytest.raises(ConfigError, match=r"there is no .*nothing\.txt"):
        rows("--model", settings.model, "--text", tmp_path / "nothing.txt")
