"""Reading and checking config.json, and resolving a model name to a directory."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import CodeGenConfig

from moss_tp.config import ModelConfig, resolve_model
from moss_tp.errors import CheckpointError, ConfigError
from tests.support.tiny_moss import make_checkpoint

# The published config.json of moss-moon-003-sft, without fields that no code reads.
PUBLISHED = {
    "activation_function": "gelu_new",
    "architectures": ["MossForCausalLM"],
    "bos_token_id": 106028,
    "eos_token_id": 106068,
    "layer_norm_epsilon": 1e-05,
    "model_type": "moss",
    "n_ctx": 2048,
    "n_embd": 6144,
    "n_head": 24,
    "n_inner": None,
    "n_layer": 34,
    "n_positions": 2048,
    "rotary_dim": 64,
    "tie_word_embeddings": False,
    "vocab_size": 107008,
    "wbits": 32,
    "groupsize": 128,
}


def write(directory: Path, **changes: Any) -> Path:
    (directory / "config.json").write_text(json.dumps({**PUBLISHED, **changes}))
    return directory


def test_published_config(tmp_path: Path) -> None:
    assert ModelConfig.from_dir(write(tmp_path)) == ModelConfig(
        num_layers=34,
        hidden_size=6144,
        num_heads=24,
        head_dim=256,
        intermediate_size=24576,
        rotary_dim=64,
        vocab_size=107008,
        max_position_embeddings=2048,
        layer_norm_eps=1e-5,
    )


def test_config_saved_by_transformers(tmp_path: Path) -> None:
    config = CodeGenConfig(
        n_embd=64, n_head=4, n_layer=2, rotary_dim=8, architectures=["CodeGenForCausalLM"]
    )
    config.save_pretrained(tmp_path)
    read = ModelConfig.from_dir(tmp_path)
    assert (read.hidden_size, read.num_heads, read.head_dim) == (64, 4, 16)
    assert read.intermediate_size == 256


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["LlamaForCausalLM"]}, "LlamaForCausalLM"),
        ({"architectures": None}, "architecture none"),
        ({"activation_function": "relu"}, "relu"),
        ({"tie_word_embeddings": True}, "tied"),
        ({"n_head": 7}, "n_head 7"),
        ({"n_head": 0}, "positive"),
        ({"rotary_dim": 300}, "rotary_dim 300"),
        ({"rotary_dim": 63}, "rotary_dim 63"),
        ({"rotary_dim": None}, r"config\.json: the field 'rotary_dim' is missing"),
        ({"n_layer": "many"}, "'n_layer' is 'many', not a number"),
        ({"n_layer": True}, "'n_layer' is True, not a number"),
        ({"n_layer": [34]}, "'n_layer'"),
        ({"n_layer": 33.5}, "'n_layer' is 33.5, not an integer"),
        ({"n_layer": float("nan")}, "'n_layer' is nan"),
        ({"layer_norm_epsilon": float("nan")}, "layer_norm_epsilon nan"),
        ({"layer_norm_epsilon": 0}, "layer_norm_epsilon 0"),
        ({"layer_norm_epsilon": 10**400}, r"config\.json: .* too large"),
    ],
)
def test_impossible_config(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        ModelConfig.from_dir(write(tmp_path, **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"bos_token_id": None},
        {"eos_token_id": None},
        {"eos_token_id": [106068, 106028]},
        {"n_positions": None},
        {"n_layer": 34.0},
    ],
)
def test_fields_as_other_programs_write_them(tmp_path: Path, changes: dict[str, Any]) -> None:
    expected = ModelConfig.from_dir(write(tmp_path))
    assert ModelConfig.from_dir(write(tmp_path, **changes)) == expected


def test_missing_field_is_named(tmp_path: Path) -> None:
    fields = {name: value for name, value in PUBLISHED.items() if name != "rotary_dim"}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(CheckpointError, match="'rotary_dim' is missing"):
        ModelConfig.from_dir(tmp_path)


@pytest.mark.parametrize("content", ["", "[1]", "{", "\x80"])
def test_broken_config(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content, encoding="latin-1")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        ModelConfig.from_dir(tmp_path)


def test_missing_config(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no .*config\.json"):
        ModelConfig.from_dir(tmp_path)


@pytest.mark.parametrize("tp_size", [1, 2, 3, 4, 6, 8, 12, 24])
def test_tp_size_that_divides_the_heads(tmp_path: Path, tp_size: int) -> None:
    ModelConfig.from_dir(write(tmp_path)).check_tp(tp_size)


@pytest.mark.parametrize("tp_size", [-1, 0, 5, 7, 48])
def test_tp_size_that_does_not_divide_the_heads(tmp_path: Path, tp_size: int) -> None:
    with pytest.raises(ConfigError, match=rf"tp {tp_size} .* 24 heads: choose one of 1, 2, 3"):
        ModelConfig.from_dir(write(tmp_path)).check_tp(tp_size)


def test_tp_size_that_does_not_divide_the_mlp(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="100 columns"):
        ModelConfig.from_dir(write(tmp_path, n_inner=100)).check_tp(3)


def test_directory_resolves_to_itself(tmp_path: Path) -> None:
    assert resolve_model(str(make_checkpoint(tmp_path / "m"))) == tmp_path / "m"


@pytest.mark.parametrize("name", ["/no/such/dir", "./nothing", "../x", "moss", "a/b/c", ""])
def test_name_that_cannot_be_a_hub_id(name: str) -> None:
    with pytest.raises(CheckpointError, match="there is no model directory"):
        resolve_model(name)


def test_hub_id_that_cannot_be_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="nobody/no-such-model") as caught:
        resolve_model("nobody/no-such-model")
    assert "\n" not in str(caught.value)


def test_hub_id_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = tmp_path / "models--someone--tiny" / "snapshots" / ("0" * 40)
    make_checkpoint(snapshot)
    refs = tmp_path / "models--someone--tiny" / "refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path))
    assert ModelConfig.from_dir(resolve_model("someone/tiny")).num_layers == 2
