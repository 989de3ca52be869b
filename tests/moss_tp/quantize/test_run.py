"""A whole quantization of a tiny model: its files, its report, and what it refuses."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from moss_tp.config import ModelConfig
from moss_tp.errors import CheckpointError, ConfigError
from moss_tp.quantize.block import LINEARS
from moss_tp.quantize.output import Output
from moss_tp.quantize.run import quantize_model
from moss_tp.quantize.settings import QuantizeSettings
from moss_tp.quantize.source import Source
from moss_tp.quantize.space import model_bytes
from moss_tp.weights.digest import weights_digest
from tests.moss_tp.quantize.published import tensors_of
from tests.moss_tp.quantize.tiny_run import make_settings, write_chats
from tests.support.tiny_moss import make_checkpoint


def quantize(settings: QuantizeSettings) -> dict[str, Any]:
    return quantize_model(settings, is_shown=False)


def test_every_file_is_there(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    quantize(settings)
    names = {path.name for path in settings.destination.iterdir()}
    shards = {f"model-{number:05}-of-00003.safetensors" for number in (1, 2, 3)}
    assert names == shards | {
        "config.json",
        "model.safetensors.index.json",
        "quantize_manifest.json",
        "quantize_report.json",
        "tokenizer.json",
    }
    source, tensors = tensors_of(settings.model), tensors_of(settings.destination)
    linears = {f"transformer.h.{layer}.{linear}" for layer in (0, 1) for linear in LINEARS}
    parts = ("qweight", "qzeros", "scales", "g_idx")
    kept = {name for name in source if name.removesuffix(".weight") not in linears}
    assert tensors.keys() == kept | {f"{linear}.{part}" for linear in linears for part in parts}
    assert all(torch.equal(tensors[name], source[name]) for name in kept)
    assert not Output(settings.destination).partial.exists()


def test_config_and_manifest_say_how(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, bits=8, act_order=True, group_size=64)
    quantize(settings)
    config = json.loads((settings.destination / "config.json").read_text())
    assert (config["wbits"], config["groupsize"]) == (8, 64)
    expected = {
        "quant_method": "gptq",
        "checkpoint_format": "gptq",
        "bits": 8,
        "group_size": 64,
        "desc_act": True,
        "sym": False,
        "lm_head": False,
    }
    assert expected.items() <= config["quantization_config"].items()
    manifest = json.loads((settings.destination / "quantize_manifest.json").read_text())
    assert manifest["source_digest"] == weights_digest(settings.model)
    assert manifest["bits"] == 8 and manifest["seed"] == 0


def test_gptqmodel_is_told_how_zero_points_are_stored(tmp_path: Path) -> None:
    """It refuses asymmetric files of this format unless `meta.quantizer` names a gptqmodel since
    0.9.0: by this rule, written after its `is_quantized_by_gptaq`."""
    settings = make_settings(tmp_path)
    quantize(settings)
    fields = json.loads((settings.destination / "config.json").read_text())
    quantizers = [one.split(":") for one in fields["quantization_config"]["meta"]["quantizer"]]
    assert quantizers[0][0] == "moss-serve"
    theirs = [version for name, version in quantizers if name == "gptqmodel"]
    assert [tuple(map(int, version.split("."))) for version in theirs] == [(0, 9, 0)]
    # What the mark promises: less 1, each zero point fits its bits, so that no word has a borrow.
    words = tensors_of(settings.destination)["transformer.h.0.mlp.fc_in.qzeros"]
    stored = (words[:, :, None] >> torch.arange(0, 32, 4, dtype=torch.int32)) & 15
    assert int(stored.max()) <= 14 and int(stored.min()) < int(stored.max())


def test_float_types_of_the_source_are_kept(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "half", positions=512, format="bin", dtype=torch.float16)
    settings = make_settings(tmp_path, model=tmp_path / "half", dtype="bfloat16")
    quantize(settings)
    tensors = tensors_of(settings.destination)
    assert tensors["transformer.h.0.mlp.fc_in.bias"].dtype == torch.float16
    assert tensors["lm_head.weight"].dtype == torch.float16


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"group_size": 48}, "the group size 48 does not divide the 64 inputs of attn.qkv_proj"),
        ({"group_size": 128}, "does not divide the 64 inputs"),
        ({"group_size": 0}, "group_size cannot be 0"),
        ({"bits": 3}, "bits cannot be 3"),
        ({"damping": 0.0}, "damping cannot be 0.0"),
        ({"calibration": Path("/none.jsonl")}, "there is no /none.jsonl"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        quantize(make_settings(tmp_path, **changes))
    assert not (tmp_path / "out.partial").exists()


def test_linears_that_do_not_fill_words_are_refused(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "odd", inner=72, positions=512)
    settings = make_settings(tmp_path, model=tmp_path / "odd", group_size=-1)
    with pytest.raises(ConfigError, match=r"mlp\.fc_in is 72 x 64: not multiples of 32"):
        quantize(settings)


def test_a_destination_that_is_there_is_refused(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    settings.destination.mkdir()
    with pytest.raises(ConfigError, match="out exists: choose another"):
        quantize(settings)
    with pytest.raises(ConfigError, match="in the model's own directory"):
        replace(settings, destination=settings.model / "out")


def test_somebody_else_s_files_are_left_alone(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    foreign = Output(settings.destination).partial / "diary"
    foreign.parent.mkdir()
    foreign.write_text("mine")
    with pytest.raises(ConfigError, match="holds files that this command did not make"):
        quantize(settings)
    assert foreign.read_text() == "mine"


def begin(settings: QuantizeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that fails at its end."""

    def fail(*args: object) -> None:
        raise CheckpointError("the disk is gone")

    with monkeypatch.context() as patch, pytest.raises(CheckpointError, match="the disk is gone"):
        patch.setattr("moss_tp.quantize.run.write_rest", fail)
        quantize(settings)


def test_a_run_with_other_settings_does_not_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings(tmp_path)
    begin(settings, monkeypatch)
    with pytest.raises(ConfigError, match="was begun with act_order False, not True"):
        quantize(replace(settings, act_order=True))
    write_chats(settings.calibration, count=25)
    with pytest.raises(ConfigError, match="was begun with calibration_digest"):
        quantize(settings)
    write_chats(settings.calibration)
    quantize(settings)


def test_a_model_that_has_changed_does_not_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings(tmp_path)
    begin(settings, monkeypatch)
    make_checkpoint(settings.model, positions=512, seed=9)
    with pytest.raises(ConfigError, match="was begun with source_digest"):
        quantize(settings)


def test_a_full_disk_is_noticed_before_it_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1 << 20}))
    with pytest.raises(ConfigError, match=r"needs 0.1 GiB more, and 0.0 GiB are free"):
        quantize(settings)


def test_the_space_is_estimated_well(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    quantize(settings)
    written = sum(f.stat().st_size for f in settings.destination.glob("*.safetensors"))
    with Source(settings.model) as source:
        assert 0.9 * written < model_bytes(settings, source) <= written


def test_weights_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    weight = "transformer.h.1.mlp.fc_in.weight"
    index = json.loads((settings.model / "model.safetensors.index.json").read_text())
    file = settings.model / index["weight_map"][weight]
    tensors = load_file(file)
    tensors[weight][0, 0] = float("nan")
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match="or not numbers"):
        quantize(settings)
    assert not settings.destination.exists()


def test_a_raised_damping_is_reported(tmp_path: Path) -> None:
    """The text has fewer tokens than the model inputs, so the first Hessian has no full rank."""
    settings = make_settings(tmp_path, damping=1e-12)
    raised = quantize(settings)["raised_dampings"]
    assert raised["h.0.attn.qkv_proj"] > 1e-12
    assert not quantize(make_settings(tmp_path, destination=tmp_path / "b"))["raised_dampings"]


def test_a_quantized_model_is_not_quantized_again(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    quantize(settings)
    again = replace(settings, model=settings.destination, destination=tmp_path / "again")
    with pytest.raises(ConfigError, match="out is quantized already"):
        quantize(again)
    assert not (tmp_path / "again.partial").exists()
    assert ModelConfig.from_dir(settings.model).quantization is None
