"""A quantization of a tiny model on a few conversations, here or in a process that is killed.

The process starts from one that has imported torch already, so that it takes a second.
"""

import json
import os
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from moss_tp.quantize.output import Output
from moss_tp.quantize.run import quantize_model
from moss_tp.quantize.settings import QuantizeSettings
from tests.moss_tp.finetune.tiny_run import Disturbance, watch_calls
from tests.support.published_chat import published_chat
from tests.support.tiny_moss import make_checkpoint

NUM_CHATS = 24
_QUANTIZE = get_context("forkserver")
_QUANTIZE.set_forkserver_preload(["moss_tp.quantize.run", "tests.moss_tp.quantize.tiny_run"])
_TIMEOUT_S = 250


def make_settings(directory: Path, **changes: Any) -> QuantizeSettings:
    """The model and its text are written here."""
    model = directory / "tiny"
    if not model.exists():
        make_checkpoint(model, positions=512)
        write_chats(directory / "chats.jsonl")
    settings = QuantizeSettings(
        model=model,
        destination=directory / "out",
        calibration=directory / "chats.jsonl",
        group_size=32,
        dtype="float32",
    )
    return replace(settings, **changes)


def write_chats(file: Path, count: int = NUM_CHATS) -> None:
    lines = []
    for number in range(count):
        chat = published_chat()
        chat["chat"]["turn_1"]["Human"] = f"<|Human|>: I am Ann. {number}?<eoh>\n"
        lines.append(json.dumps(chat) + "\n")
    file.write_text("".join(lines), encoding="utf-8")


def contents(directory: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in directory.iterdir()}


def run_apart(settings: QuantizeSettings, kill_at: int | None = None) -> tuple[int | None, int]:
    """In a process of its own, killed before its `kill_at`th call to the file system below the
    output's directory: its exit code, and the number of its calls."""
    with TemporaryDirectory() as directory:
        report = Path(directory, "calls")
        process = _QUANTIZE.Process(target=_run, args=(settings, report, kill_at))
        process.start()
        process.join(_TIMEOUT_S)
        num_calls = int(report.read_text()) if report.exists() else 0
        return process.exitcode, num_calls


def _run(settings: QuantizeSettings, report: Path, kill_at: int | None) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    torch.set_num_threads(1)
    disturbance = None if kill_at is None else Disturbance(kill_at)
    calls = watch_calls(Output(settings.destination).partial, disturbance, 0)
    quantize_model(settings)
    report.write_text(str(len(calls)))
