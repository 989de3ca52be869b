"""`moss bench` on a tiny model, from flags to files. Speeds are not asserted."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from moss_tp.errors import CheckpointError, ConfigError
from serve_app.cli.bench.command import command
from tests.support.config_only import config_only
from tests.support.tiny_moss import make_checkpoint

QUICK = ("--threads", "1", "--dtype", "float32", "--repeats", "1")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model"))


def bench(*arguments: object) -> Result:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def report(tmp_path: Path, *arguments: object) -> dict[str, Any]:
    """The rows that the command writes with --json, by section."""
    file = tmp_path / "report.json"
    result = bench(*arguments, *QUICK, "--json", file)
    assert result.exit_code == 0, result.output
    sections = json.loads(file.read_text("utf-8"))["sections"]
    return {name: section["rows"] for name, section in sections.items()}


def test_engine_alternates_two_engines(model: Path, tmp_path: Path) -> None:
    png = tmp_path / "engine.png"
    flags = ("--batch", "1,3", "--prompt", "9", "--new", "6", "--prefill", "20", "--png", png)
    sections = report(tmp_path, "engine", "--model", model, "--compare", "tp1x1,tp2x1", *flags)
    rows = [(row["engine"], row["batch"]) for row in sections["decode"]]
    assert rows == [("tp1x1", 1), ("tp1x1", 3), ("tp2x1", 1), ("tp2x1", 3)]
    # `tok_s` is not asserted: on a model this small, noise can exceed the whole decode time.
    assert all(row["step_ms"] > row["host_ms"] > 0 for row in sections["decode"])
    assert all(row["limit_tok_s"] > 0 for row in sections["decode"])
    assert [row["tokens"] for row in sections["prefill"]] == [20, 20]
    assert png.read_bytes().startswith(b"\x89PNG")


def test_random_weights_need_a_config_alone(tmp_path: Path) -> None:
    model = config_only(tmp_path / "model")
    flags = ("--batch", "1", "--prompt", "9", "--new", "6", "--prefill", "20")
    sections = report(tmp_path, "engine", "--model", model, "--load-format", "dummy", *flags)
    assert [row["batch"] for row in sections["decode"]] == [1]
    with pytest.raises(CheckpointError, match="has neither a tokenizer"):
        bench("engine", "--model", model, *flags, *QUICK)


def test_a_gpu_that_is_not_there(model: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(ConfigError, match="there is no CUDA device"):
        bench("engine", "--model", model, "--device", "cuda", "--load-format", "dummy")
    with pytest.raises(ConfigError, match="cpu_offload_gb is for device cuda"):
        bench("engine", "--model", model, "--cpu-offload-gb", "1", *QUICK)


def test_the_hosts_time_with_a_null_device() -> None:
    result = bench("host", "--batch", "1,3", "--repeats", "1")
    assert result.exit_code == 0, result.output
    rows = [line.split("|")[1:-1] for line in result.output.splitlines()[-2:]]
    assert [int(batch) for batch, _ in rows] == [1, 3]
    assert all(float(host_ms) > 0 for _, host_ms in rows)
    many = bench("host", "--batch", "1,100")
    assert many.exit_code == 2 and "at most 64 sequences" in many.output


def test_mixed_workload(model: Path, tmp_path: Path) -> None:
    flags = ("--requests", "6", "--prompts", "2-9", "--outputs", "3-5", "--rate", "200")
    (row,) = report(tmp_path, "engine", "--mixed", "--model", model, *flags)["mixed"]
    assert row["total_tok_s"] > row["output_tok_s"] > 0


def test_soak_measures_memory(model: Path, tmp_path: Path) -> None:
    (row,) = report(tmp_path, "engine", "--soak", "100", "--model", model)["soak"]
    assert row["requests"] == 100
    assert row["rss_last_MiB"] > 0


def test_a_chat_is_served_from_the_prefix_cache(model: Path, tmp_path: Path) -> None:
    flags = ("--turns", "4", "--user", "10", "--reply", "22", "--set", "block_size=4")
    turns = report(tmp_path, "chat", "--model", model, *flags)["turns"]
    assert [row["history"] for row in turns] == [0, 32, 64, 96]
    # All whole blocks; the KV of the last sampled token is never computed.
    assert [row["cached"] for row in turns] == [0, 28, 60, 92]


def test_collectives_of_two_ranks() -> None:
    few = ("--repeats", "1", "--rounds", "5")
    result = bench("collectives", "--bytes", "64", "--pauses", "1", *few)
    assert result.exit_code == 0, result.output
    rows = [line.split("|")[1:-1] for line in result.output.splitlines() if "memory |" in line]
    p50_us = {operation.strip(): float(p50) for _, operation, p50, *_ in rows}
    assert list(p50_us) == [
        "all-reduce of 64 bytes",
        "broadcast of a step, 0 ms after the last",
        "broadcast of a step, 1 ms after the last",
        "1.0",
    ]
    assert all(0 <= number < 1e6 for number in p50_us.values())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--batch", "1,x"), "'1,x' is not like 1,8"),
        (("--batch", "0"), "'0' is not like 1,8"),
        (("--mixed", "--prompts", "16"), "'16' has not 2 numbers"),
        (("--compare", "tp1"), "'tp1' is not like tp1x2,tp2x1"),
        (("--set", "block_size"), "'block_size' is not FIELD=VALUE"),
    ],
)
def test_a_bad_flag_is_a_usage_error(flags: tuple[str, ...], message: str) -> None:
    result = bench("engine", *flags)
    assert result.exit_code == 2
    assert message in result.output


def test_an_unknown_engine_setting_is_an_error(model: Path) -> None:
    with pytest.raises(ConfigError, match="colour"):
        bench("engine", "--mixed", "--model", model, "--set", "colour=red")


@pytest.mark.parametrize(
    "setting", ["cpu_offload_gb=abc", "block_size=x", "block_size=1.5", "max_num_seqs=true"]
)
def test_a_setting_of_another_type_is_an_error_before_the_run(model: Path, setting: str) -> None:
    with pytest.raises(ConfigError, match=f"^{setting.partition('=')[0]} cannot be"):
        bench("engine", "--model", model, "--set", setting)


@pytest.mark.parametrize("flag", ["--json", "--png"])
def test_a_file_without_a_directory_is_an_error_before_the_run(tmp_path: Path, flag: str) -> None:
    with pytest.raises(ConfigError, match="there is no directory for"):
        bench("engine", flag, tmp_path / "missing" / "file")


@pytest.mark.parametrize("flag", ["--json", "--png"])
@pytest.mark.parametrize("content", [b"notes", b"[1]", b'{"a": 1}', b"\xff"])
def test_a_file_of_somebody_else_is_an_error_before_the_run(
    tmp_path: Path, flag: str, content: bytes
) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ConfigError, match="file is not a result of moss bench"):
        bench("engine", flag, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == content
