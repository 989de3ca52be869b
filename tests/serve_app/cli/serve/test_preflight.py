"""`moss serve` rejects what cannot work with one line, before it starts anything."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve_app.bench.load.server_process import free_port
from serve_app.store.embedded import EmbeddedStore
from tests.support.moss_command import run_moss
from tests.support.tiny_moss import make_checkpoint


def error_of(directory: Path, *flags: str) -> str:
    """Runs a `moss serve` that must fail with status 1 and one line, and returns that line."""
    shown = run_moss("serve", *flags, directory=directory)
    assert shown.returncode == 1, shown.stderr
    assert shown.stdout == ""
    assert shown.stderr.startswith("moss: ")
    assert shown.stderr.count("\n") == 1
    assert not (directory / ".moss").exists()
    return shown.stderr


def test_missing_model(tmp_path: Path) -> None:
    assert "there is no model directory ./nothing" in error_of(tmp_path, "--model", "./nothing")


def test_directory_without_a_model(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "config.json" in error_of(tmp_path, "--model", "./empty")


def test_model_without_a_tokenizer(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "model")
    (model / "tokenizer.json").unlink()
    assert "tokenizer.json" in error_of(tmp_path, "--model", str(model))


def test_tokenizer_of_a_larger_model(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "model")
    config = json.loads((model / "config.json").read_text("utf-8"))
    config["vocab_size"] = 10
    (model / "config.json").write_text(json.dumps(config), "utf-8")
    assert "they do not belong together" in error_of(tmp_path, "--model", str(model))


def test_weights_that_are_cut_off(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "model")
    file = next(model.glob("*-00002.safetensors"))
    os.truncate(file, file.stat().st_size // 2)
    assert f"{file.name} cannot be read" in error_of(tmp_path, "--model", str(model))


def test_weights_of_another_config(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "model")
    config = json.loads((model / "config.json").read_text("utf-8"))
    config["n_layer"] = 3
    (model / "config.json").write_text(json.dumps(config), "utf-8")
    assert "missing: transformer.h.2.attn" in error_of(tmp_path, "--model", str(model))


def test_unwritable_data_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot write in file/data" in error_of(tmp_path, "--data-dir", "file/data")


def test_tp_that_does_not_divide_the_heads(tmp_path: Path) -> None:
    assert "tp 3 does not divide the model's" in error_of(tmp_path, "--tp", "3")


def test_max_model_len_beyond_the_model(tmp_path: Path) -> None:
    assert "max_model_len 99999 is beyond" in error_of(tmp_path, "--max-model-len", "99999")


def test_too_few_gpus(tmp_path: Path) -> None:
    import torch

    if torch.cuda.device_count() >= 2:
        pytest.skip("this machine has the GPUs")
    assert "2 GPUs are needed" in error_of(tmp_path, "--device", "cuda")


def test_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert f"port {port} of 127.0.0.1 is in use" in error_of(tmp_path, "--port", str(port))


def test_address_of_another_machine(tmp_path: Path) -> None:
    flags = ("--host", "203.0.113.1", "--no-auth")
    assert "cannot listen on 203.0.113.1" in error_of(tmp_path, *flags)


def test_a_host_that_others_reach_needs_keys(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::"):
        assert "add --auth required" in error_of(tmp_path, "--host", host)
    assert "add --auth required" in error_of(tmp_path, "--host", "0.0.0.0", "--auth", "none")
    assert "choose one" in error_of(tmp_path, "--auth", "required", "--no-auth")


def test_unknown_host(tmp_path: Path) -> None:
    assert "cannot listen on nowhere.invalid" in error_of(tmp_path, "--host", "nowhere.invalid")


@pytest.mark.parametrize("url", ["memory", "http://localhost", "redis"])
def test_invalid_store_url(tmp_path: Path, url: str) -> None:
    assert "--store is embedded or a URL" in error_of(tmp_path, "--store", url)


def test_unreachable_store(tmp_path: Path) -> None:
    assert "store" in error_of(tmp_path, "--store", f"redis://127.0.0.1:{free_port()}/0")


@pytest.fixture
def data_in_use(tmp_path: Path) -> Iterator[Path]:
    with EmbeddedStore(tmp_path / "data" / "store"):
        yield tmp_path / "data"


def test_data_directory_of_another_server(tmp_path: Path, data_in_use: Path) -> None:
    port = str(free_port())
    shown = run_moss("serve", "--port", port, "--data-dir", str(data_in_use))
    assert shown.returncode == 1
    *progress, last = shown.stderr.splitlines()
    assert len(progress) == 1
    assert "is in use by another server" in last
