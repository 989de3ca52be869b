"""A kernel that never ends is noticed: the engine dies in time, and closing it returns."""

import time
from collections.abc import Callable
from random import Random
from typing import Any

import torch

from moss_tp.accelerator.base import Event
from moss_tp.accelerator.eager import EagerAccelerator, EagerQueue
from moss_tp.errors import EngineDeadError
from moss_tp.gpu_check.check import Check
from moss_tp.gpu_check.tools.checkpoint import SMALL
from moss_tp.gpu_check.tools.engines import drive, opened, requests
from moss_tp.gpu_check.verdict import Verdict
from moss_tp.kernels.cuda.runtime.spin import spin

STEP_TIMEOUT_S = 2.0
MAX_NOTICE_S = 10.0
MAX_CLOSE_S = 10.0


class Never:
    """An event that does not come."""

    def is_done(self) -> bool:
        return False


class StuckQueue(EagerQueue):
    """A CPU's queue that stops when it is told to."""

    is_stuck = False

    def record(self) -> Event:
        return Never() if self.is_stuck else super().record()


class StuckAccelerator(EagerAccelerator):
    """A CPU that does not end what it has begun after `stop`."""

    def __init__(self) -> None:
        super().__init__()
        self._queue = StuckQueue()
        self.compute = self._queue

    def stop(self) -> None:
        self._queue.is_stuck = True


def run(check: Check) -> None:
    accelerator = None if check.device.type == "cuda" else StuckAccelerator()
    settings: dict[str, Any] = {
        "load_format": "dummy",
        "kv_cache_bytes": 1 << 24,
        "step_timeout_s": STEP_TIMEOUT_S,
    }
    model = SMALL.write(check.directory / "hangs")
    with opened(check, model, "float32", accelerator, **settings) as engine:
        drive(engine, requests(Random(0), 4, 8, 8, SMALL.vocab_size))
        release = _stop(accelerator)
        try:
            start = time.monotonic()
            died = _dies(lambda: drive(engine, requests(Random(1), 4, 8, 8, SMALL.vocab_size)))
            noticed = time.monotonic() - start if died else float("inf")
            verdict = Verdict("noticed after", noticed, "s", bar=MAX_NOTICE_S, sense="at most")
            check.verdict(verdict)
            start = time.monotonic()
            engine.close()
            closed = time.monotonic() - start
            check.verdict(Verdict("closed in", closed, "s", bar=MAX_CLOSE_S, sense="at most"))
        finally:
            release()


def _stop(accelerator: StuckAccelerator | None) -> Callable[[], None]:
    """Has the device work on something without an end; returns what ends it."""
    if accelerator is not None:
        accelerator.stop()
        return lambda: None
    flag = torch.zeros(1, dtype=torch.int32, pin_memory=True)
    spin(flag)  # on the current stream, which is the engine's

    def release() -> None:
        flag[0] = 1

    return release


def _dies(run: Callable[[], object]) -> bool:
    try:
        run()
    except EngineDeadError:
        return True
    return False
