"""`moss bench serve`: streams on a server that it starts, beside the engine alone."""

import json
from pathlib import Path

from click.testing import CliRunner

from serve_app.cli.bench.command import command
from tests.e2e.endless_model import make_endless_model


def test_bench_serve_measures_streams_and_the_engine_alone(tmp_path: Path) -> None:
    model, file = make_endless_model(tmp_path / "model"), tmp_path / "report.json"
    flags = ("--tp", "1", "--dtype", "float32", "--repeats", "1", "--streams", "2")
    lengths = ("--prompt-chars", "10", "--max-length", "560")
    arguments = ["serve", "--model", str(model), *flags, *lengths, "--json", str(file)]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    (row,) = json.loads(file.read_text("utf-8"))["sections"]["serve"]["rows"]
    # A stream ends when prompt, thoughts and reply have 560 tokens together.
    assert 16 < row["tokens_a_stream"] < 560
    assert row["tok_s"] > 0
    assert row["offline_tok_s"] > 0
