"""An engine in processes of its own, so that what is measured of it is all its own."""

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from random import Random

from moss_tp.errors import EngineDeadError
from serve_app.bench.launch import EngineSpec, open_engine
from serve_app.bench.load.drive import drive
from serve_app.bench.load.workload import same_requests
from serve_app.bench.memory.pss import family_pss

SAMPLE_S = 0.2
_STOP_S = 60.0


@dataclass(frozen=True)
class Work:
    """One request: a random prompt, and a reply of `new` tokens."""

    prompt: int
    new: int


@dataclass(frozen=True)
class Done:
    """Seconds of all decode steps of a Work, and the memory of the processes."""

    decode_s: float
    memory: "Memory"


@dataclass(frozen=True)
class Memory:
    """In bytes: afterwards, and at most meanwhile."""

    now: int
    peak: int


class EngineProcess:
    """`ready_s` is the time from the start of the process until it could serve, imports and all;
    `loaded` its memory then."""

    def __init__(self, spec: EngineSpec, vocab_size: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        began = time.perf_counter()
        self._process = context.Process(target=_serve, args=(theirs, spec, vocab_size))
        self._process.start()
        theirs.close()
        _, self.loaded = self._answer()
        self.ready_s = time.perf_counter() - began

    def run(self, work: Work) -> Done:
        """Raises EngineDeadError if the process ends."""
        self._pipe.send(work)
        return Done(*self._answer())

    @property
    def pss_bytes(self) -> int:
        return family_pss(self._process.pid or 0)

    def close(self) -> None:
        self._pipe.close()  # the process ends when it reads the end
        self._process.join(_STOP_S)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join(_STOP_S)

    def _answer(self) -> tuple[float, Memory]:
        """What the process sends next, and its memory."""
        peak = 0
        while not self._pipe.poll(SAMPLE_S):
            peak = max(peak, self.pss_bytes)
        try:
            seconds: float = self._pipe.recv()
        except EOFError:
            raise EngineDeadError("the engine's process has ended; it said why above") from None
        now = self.pss_bytes
        return seconds, Memory(now, max(peak, now))


@contextmanager
def engine_process(spec: EngineSpec, vocab_size: int) -> Iterator[EngineProcess]:
    engine = EngineProcess(spec, vocab_size)
    try:
        yield engine
    finally:
        engine.close()


def _serve(pipe: Connection, spec: EngineSpec, vocab_size: int) -> None:
    random = Random(0)
    with open_engine(spec) as engine:
        pipe.send(0.0)
        while True:
            try:
                work: Work = pipe.recv()
            except EOFError:
                return
            (request,) = same_requests(random, 1, work.prompt, work.new, vocab_size)
            (trace,) = drive(engine, [request])
            pipe.send(trace.token_times[-1] - trace.token_times[0])
