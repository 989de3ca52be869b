"""Whole runs on a tiny model: loss, resumption, and an exported model that can be served."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from click.testing import CliRunner
from safetensors.torch import load_file
from transformers import set_seed

from moss_tp.errors import CheckpointError, ConfigError
from moss_tp.finetune.command import command
from moss_tp.finetune.output import OutputDir, step_of
from moss_tp.finetune.settings import FinetuneSettings
from moss_tp.finetune.trainer import finetune
from moss_tp.model import load_model
from moss_tp.tokenizer import Tokenizer
from tests.moss_tp.finetune.tiny_run import (
    BATCH,
    NUM_TRAIN,
    are_equal,
    exported_weights,
    make_settings,
)
from tests.support.published_chat import published_chat


@pytest.fixture
def settings(tmp_path: Path) -> FinetuneSettings:
    """Four batches an epoch, two epochs."""
    return make_settings(tmp_path)


def log(settings: FinetuneSettings) -> list[dict[str, float]]:
    lines = (settings.output_dir / "train_log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_run_learns_logs_and_evaluates(settings: FinetuneSettings) -> None:
    progress = finetune(settings)
    assert progress.step == 8
    losses = [line["loss"] for line in log(settings) if "loss" in line]
    assert len(losses) == 8
    assert losses[-1] < 0.8 * losses[0]
    assert [line["step"] for line in log(settings) if "eval_loss" in line] == [4, 8]


def test_conversations_are_cut_to_the_models_positions(settings: FinetuneSettings) -> None:
    """The turns that fit are kept."""
    chat = published_chat()
    turn = chat["chat"]["turn_1"]
    chat["chat"] = {f"turn_{number}": turn for number in range(1, 21)}
    chat["num_turns"] = 20
    path = settings.data_dir / "train.jsonl"
    path.write_text("".join([json.dumps(chat) + "\n"] * BATCH), encoding="utf-8")
    assert finetune(replace(settings, max_seq_len=2048, epochs=1)).step == 1


def test_schedule_warms_up_and_decays_as_a_cosine(settings: FinetuneSettings) -> None:
    finetune(replace(settings, warmup_rate=0.25))
    rates = [line["lr"] for line in log(settings) if "lr" in line]
    assert rates[0] == pytest.approx(1.5e-3)
    assert rates[1] == pytest.approx(3e-3)
    assert rates[4] == pytest.approx(1.5e-3)
    assert rates[-1] == 0


def test_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    settings: FinetuneSettings, tmp_path: Path
) -> None:
    finetune(settings)
    resumed = replace(settings, output_dir=tmp_path / "resumed")
    _run_and_crash_at(replace(resumed, save_step=5, max_steps=None), step=6)
    progress = finetune(replace(resumed, resume=True))
    assert progress.step == 8
    assert are_equal(exported_weights(resumed), exported_weights(settings))
    assert [line["step"] for line in log(resumed) if "loss" in line] == [1, 2, 3, 4, 5, 6, 6, 7, 8]


def _run_and_crash_at(settings: FinetuneSettings, step: int) -> None:
    """A run that crashes after `step`, between two saves."""
    from moss_tp.finetune.trainer import Trainer

    class CrashError(Exception):
        pass

    class CrashingTrainer(Trainer):
        def _after_step(self) -> None:
            super()._after_step()
            if self.progress.step == step:
                raise CrashError

    set_seed(settings.seed)
    output = OutputDir(settings.output_dir)
    with pytest.raises(CrashError), output.owned(resume=False):
        CrashingTrainer(settings, Accelerator(), output).run()


def test_exported_model_can_be_loaded_for_serving(settings: FinetuneSettings) -> None:
    from moss_tp.config import ModelConfig
    from moss_tp.parallel.tp_group import TPGroup

    finetune(replace(settings, export_dtype="bfloat16", epochs=1))
    directory = settings.output_dir / "model"
    config = ModelConfig.from_dir(directory)
    group = TPGroup.single(torch.device("cpu"))
    load_model(directory, config, group, torch.float32)
    exported = load_file(directory / "model.safetensors")
    assert {tensor.dtype for tensor in exported.values()} == {torch.bfloat16}
    assert Tokenizer.from_dir(directory).encode("hi") == Tokenizer.from_dir(settings.model).encode(
        "hi"
    )


def test_resume_without_a_state_is_an_error(settings: FinetuneSettings) -> None:
    with pytest.raises(CheckpointError, match="nothing to resume"):
        finetune(replace(settings, resume=True))


def test_impossible_settings_are_rejected(settings: FinetuneSettings) -> None:
    with pytest.raises(ConfigError, match="batch_size"):
        replace(settings, batch_size=0)
    with pytest.raises(ConfigError, match=r"train\.jsonl"):
        replace(settings, data_dir=settings.model)
    for name, value in (
        ("max_steps", 0),
        ("max_steps", -1),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("weight_decay", -1.0),
        ("adam_beta2", 1.0),
        ("max_grad_norm", 0.0),
    ):
        with pytest.raises(ConfigError, match=name):
            FinetuneSettings(**{**vars(settings), name: value})
    with pytest.raises(ConfigError, match="12 training conversations do not fill"):
        finetune(replace(settings, batch_size=NUM_TRAIN + 1))


def test_data_that_are_no_files(settings: FinetuneSettings, tmp_path: Path) -> None:
    for name in ("val", "train"):
        file = settings.data_dir / f"{name}.jsonl"
        file.unlink()
        file.mkdir()
        with pytest.raises(ConfigError, match=rf"{name}\.jsonl is not a file"):
            replace(settings, epochs=1)
        file.rmdir()


def test_empty_data(settings: FinetuneSettings) -> None:
    (settings.data_dir / "train.jsonl").write_text("")
    with pytest.raises(ConfigError, match="0 training conversations do not fill"):
        finetune(settings)


def test_a_tokenizer_of_a_larger_model(settings: FinetuneSettings) -> None:
    file = settings.model / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "vocab_size": 100}))
    with pytest.raises(CheckpointError, match="has 272 tokens, the model only 100"):
        finetune(settings)


def test_gradient_accumulation_steps_once_per_several_batches(settings: FinetuneSettings) -> None:
    assert finetune(replace(settings, gradient_accumulation=2)).step == 4


def test_command_accepts_the_published_flags(settings: FinetuneSettings) -> None:
    flags = ["--model_name_or_path", str(settings.model), "--data_dir", str(settings.data_dir)]
    flags += ["--output_dir", str(settings.output_dir), "--n_epochs", "1"]
    flags += ["--train_bsz_per_gpu", "6", "--learning_rate", "1e-3", "--save_step", "100"]
    result = CliRunner().invoke(command, flags)
    assert result.exit_code == 0, result.output
    assert "2 steps done" in result.output
    assert (settings.output_dir / "model" / "model.safetensors").is_file()


def test_command_reports_errors_in_one_line(settings: FinetuneSettings) -> None:
    flags = ["--model", str(settings.model), "--data-dir", str(settings.model)]
    result = CliRunner().invoke(command, [*flags, "--output-dir", str(settings.output_dir)])
    assert result.exit_code == 1
    assert result.output.startswith("Error: no train.jsonl")


@pytest.mark.timeout(900)
def test_two_processes_split_the_batches(settings: FinetuneSettings) -> None:
    arguments = ["--model", str(settings.model), "--data-dir", str(settings.data_dir)]
    arguments += ["--output-dir", str(settings.output_dir), "--epochs", "1", "--batch-size", "3"]
    launch = ["-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    ended = subprocess.run(
        [sys.executable, *launch, "--nproc-per-node", "2", "-m", "moss_tp.finetune", *arguments],
        env=os.environ
        | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=800,
    )
    assert ended.returncode == 0, ended.stdout
    (state,) = OutputDir(settings.output_dir).states()
    assert step_of(state) == NUM_TRAIN // 3 // 2
