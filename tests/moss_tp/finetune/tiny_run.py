"""Fine-tuning runs on a tiny model, in this process or in others that can be killed.

`FINETUNE` starts processes from one that has imported torch already, so that each takes a second.
"""

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from safetensors.torch import load_file

from moss_tp.errors import MossError
from moss_tp.finetune.settings import FinetuneSettings
from moss_tp.finetune.trainer import finetune
from tests.support.published_chat import published_chat
from tests.support.tiny_moss import make_checkpoint

NUM_TRAIN, BATCH = 12, 3
FINETUNE = get_context("forkserver")
FINETUNE.set_forkserver_preload(["moss_tp.finetune.trainer", "tests.moss_tp.finetune.tiny_run"])
_TIMEOUT_S = 900
# Audit events of calls that name a path first.
_CALLS = ("open", "os.rename", "os.mkdir", "os.rmdir", "os.remove")


def make_settings(directory: Path, **changes: Any) -> FinetuneSettings:
    """A run of four batches an epoch and two epochs; its data and model are written here."""
    data = directory / "data"
    data.mkdir()
    for name, count in (("train", NUM_TRAIN), ("val", 2)):
        lines = []
        for number in range(count):
            chat = published_chat()
            chat["chat"]["turn_1"]["Human"] = f"<|Human|>: I am Ann. {number}?<eoh>\n"
            lines.append(json.dumps(chat) + "\n")
        (data / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    settings = FinetuneSettings(
        model=make_checkpoint(directory / "tiny", layers=1, positions=512),
        data_dir=data,
        output_dir=directory / "out",
        batch_size=BATCH,
        learning_rate=3e-3,
        eval_step=4,
        save_step=3,
        log_step=1,
        export_dtype="float32",
    )
    return replace(settings, **changes)


def exported_weights(settings: FinetuneSettings) -> dict[str, torch.Tensor]:
    return load_file(settings.output_dir / "model" / "model.safetensors")


def are_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def files_below(directory: Path) -> dict[str, tuple[bytes, int]]:
    """Every file's bytes and time of change, by its path; links are not followed."""
    return {
        str(path.relative_to(directory)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in directory.rglob("*")
        if path.is_file()
    }


@dataclass(frozen=True)
class Disturbance:
    """What happens to process `rank` at its `call`th call to the file system below the output
    directory, counted from 1: it is killed, or all files are full from then on."""

    call: int
    rank: int = 0
    kind: Literal["kill", "full disk"] = "kill"

    def act(self) -> None:
        if self.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))


@dataclass(frozen=True)
class Ended:
    """How a process of a run ended: its exit code, its error, and how many calls it made to the
    file system below the output directory."""

    exit_code: int | None
    error: str | None
    num_calls: int


def run_processes(
    settings: FinetuneSettings, num_processes: int = 1, disturbance: Disturbance | None = None
) -> list[Ended]:
    """Runs in processes of its own. Once one has died, the others are killed."""
    with TemporaryDirectory() as directory:
        started = start_processes(settings, num_processes, Path(directory), disturbance)
        _join(started)
        return [_ended(process, Path(directory, str(i))) for i, process in enumerate(started)]


def start_processes(
    settings: FinetuneSettings,
    num_processes: int,
    directory: Path,
    disturbance: Disturbance | None = None,
    pause_s: float = 0,
) -> list[BaseProcess]:
    """Starts a run's processes, which meet and report in `directory`, which is empty.

    They pause before each call to the file system below the output directory.
    """
    started = [
        FINETUNE.Process(
            target=_run,
            args=(settings, rank, num_processes, str(directory), disturbance, pause_s),
        )
        for rank in range(num_processes)
    ]
    for process in started:
        process.start()
    return list(started)


def _join(processes: Sequence[BaseProcess]) -> None:
    """Waits for all; kills the rest once one has ended otherwise than well."""
    deadline = time.monotonic() + _TIMEOUT_S
    while alive := [process for process in processes if process.is_alive()]:
        wait([process.sentinel for process in alive], timeout=_TIMEOUT_S)
        if any(process.exitcode for process in processes) or time.monotonic() > deadline:
            for process in alive:
                process.kill()
                process.join()
    for process in processes:
        process.join()


def _ended(process: BaseProcess, report: Path) -> Ended:
    error, num_calls = json.loads(report.read_text()) if report.exists() else (None, 0)
    return Ended(process.exitcode, error, num_calls)


def _run(
    settings: FinetuneSettings,
    rank: int,
    num_processes: int,
    directory: str,
    disturbance: Disturbance | None,
    pause_s: float,
) -> None:
    """The body of a process."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os.environ.update(ACCELERATE_USE_CPU="true", GLOO_SOCKET_IFNAME="lo", OMP_NUM_THREADS="1")
    torch.set_num_threads(1)
    if num_processes > 1:
        # The address is not used: a file brings the processes together.
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(num_processes))
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
        store = f"file://{directory}/store"
        torch.distributed.init_process_group("gloo", store, rank=rank, world_size=num_processes)
    mine = disturbance if disturbance is not None and disturbance.rank == rank else None
    calls = watch_calls(settings.output_dir, mine, pause_s)
    error = None
    try:
        finetune(settings)
    except MossError as caught:
        error = str(caught)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    Path(directory, str(rank)).write_text(json.dumps([error, len(calls)]))


def watch_calls(root: Path, disturbance: Disturbance | None, pause_s: float) -> list[str]:
    """The calls below `root` from now on, before which Python tells of them."""
    calls: list[str] = []

    def on_event(event: str, args: tuple[Any, ...]) -> None:
        if event in _CALLS and str(args[0]).startswith(str(root)):
            calls.append(event)
            time.sleep(pause_s)
            if disturbance is not None and len(calls) == disturbance.call:
                disturbance.act()

    sys.addaudithook(on_event)
    return calls
