"""Replies of a small model in fp32: the GPU's tokens against the CPU engine's, by all settings; and
logprobs of prompts."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, Self

from moss_tp.engine.request import EngineRequest
from moss_tp.gpu_check.check import Check, Plan
from moss_tp.gpu_check.tools.checkpoint import SMALL, write_checkpoint
from moss_tp.gpu_check.tools.engines import EOS, Trace, drive, greedy, opened, random_ids
from moss_tp.gpu_check.verdict import Verdict
from moss_tp.sampling_params import SamplingParams

FILE = "cpu_tokens.json"
NEW = 24
KV_BYTES = 1 << 24
MAX_OFF = 1e-3  # of a logprob in fp32
# What is changed on the GPU, and must change no token.
WAYS: dict[str, dict[str, Any]] = {
    "together": {},
    "without drafts": {"num_speculative_tokens": 0},
    "in chunks of 16": {"max_num_batched_tokens": 16, "max_num_seqs": 16},
    "in blocks of 8": {"block_size": 8},
    "one at a time": {"max_num_seqs": 1},
}


def settings() -> Iterator[SamplingParams]:
    """Each setting alone, then together."""
    plain = replace(greedy(NEW), temperature=1.0, top_p=1.0, top_k=0)
    yield greedy(NEW)
    yield replace(greedy(NEW), repetition_penalty=1.3)
    yield replace(greedy(NEW), presence_penalty=0.5, frequency_penalty=0.4)
    yield replace(greedy(NEW), logit_bias=((7, 3.0), (9, -100.0)), logprobs=5)
    yield plain
    yield replace(plain, temperature=0.6)
    yield replace(plain, top_k=20)
    yield replace(plain, top_p=0.7)
    yield replace(plain, min_p=0.1)
    yield replace(plain, repetition_penalty=1.2, presence_penalty=0.3, frequency_penalty=0.2)
    yield replace(plain, ignore_eos=False, length_penalty=1.4, regulation_start=4)
    yield replace(plain, ignore_eos=False, min_tokens=10, stop_token_ids=(5, 11, EOS))
    yield replace(plain, top_k=40, top_p=0.8, temperature=0.7, repetition_penalty=1.02, logprobs=3)
    yield replace(greedy(NEW), max_tokens=0, prompt_logprobs=0)
    yield replace(plain, prompt_logprobs=4)


def make_requests() -> list[EngineRequest]:
    """Prompts of 1 to about 100 tokens; some repeat themselves, so that drafts are right."""
    random, found = Random(1), []
    for index, params in enumerate(settings()):
        prompt = random_ids(random, 1 + 9 * index, SMALL.vocab_size)
        if index % 3 == 2:
            prompt = (prompt[:9] * 12)[:100]
        found.append(EngineRequest(str(index), prompt, replace(params, seed=100 + index)))
    return found


def run(check: Check) -> None:
    ways = WAYS.items() if check.is_full else list(WAYS.items())[:1]
    for name, changed in ways:
        compare(check, name, changed)


def compare(check: Check, name: str, changed: Mapping[str, Any]) -> None:
    """A verdict on an engine with `changed` settings."""
    file = check.directory / "small" / FILE
    if not file.exists():
        start_cpu_tokens(check).wait()
    expected = {key: Reply(*own) for key, own in json.loads(file.read_text("utf-8")).items()}
    found = replies_of(check, "cuda", changed)
    equal = [key for key in expected if found[key].token_ids == expected[key].token_ids]
    check.verdict(Verdict(f"replies {name}", len(equal), limit=len(expected), bar=1))
    for key in expected.keys() - set(equal):
        ids = {"cpu": expected[key].token_ids, "gpu": found[key].token_ids}
        check.figure(f"{name}, request {key}", ids)
    off = max(expected[key].distance(found[key]) for key in expected)
    worst = f"logprobs of prompts {name}, the largest difference"
    check.verdict(Verdict(worst, off, bar=MAX_OFF, sense="at most"))


class Reply(NamedTuple):
    """`scores` of a prompt are [id, logprob] pairs: each token's own, and the best ones."""

    token_ids: list[int]
    scores: list[list[float]]

    @classmethod
    def of(cls, trace: Trace) -> Self:
        scores = [[t.token_id, t.logprob or 0.0] for t in trace.scores]
        scores += [[i, logprob] for t in trace.scores for i, logprob in t.top_logprobs]
        return cls(trace.token_ids, scores)

    def distance(self, other: "Reply") -> float:
        """The largest difference of a logprob; infinite for scores of other tokens."""
        own, its = ([int(i) for i, _ in reply.scores] for reply in (self, other))
        if own != its:
            return inf
        pairs = zip(self.scores, other.scores, strict=True)
        return max((abs(a - b) for (_, a), (_, b) in pairs), default=0.0)


def replies_of(check: Check, device: str, changed: Mapping[str, Any]) -> dict[str, Reply]:
    """Of an engine for `device`."""
    settings = {"device": device, "kv_cache_bytes": KV_BYTES, **changed}
    with opened(check, check.directory / "small", "float32", **settings) as engine:
        traces = drive(engine, make_requests())
    return {key: Reply.of(trace) for key, trace in traces.items()}


@dataclass(frozen=True)
class CpuTokens:
    """A process that writes the CPU engine's replies, and what it says."""

    process: "subprocess.Popen[bytes]"
    log: Path

    def wait(self) -> None:
        """Raises RuntimeError, with the process's last line, if it has failed."""
        if status := self.process.wait():
            said = self.log.read_text("utf-8", errors="replace").strip().splitlines() or [""]
            raise RuntimeError(f"no tokens of the CPU's engine, status {status}: {said[-1]}")


def start_cpu_tokens(check: Check) -> CpuTokens:
    """In a process of its own, for it may compile kernels."""
    directory = check.directory / "small"
    if not directory.exists():
        write_checkpoint(directory)
    path = os.pathsep.join(path for path in sys.path if path)
    log = check.directory / "cpu_tokens.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(check.directory)],
            env={**os.environ, "PYTHONPATH": path},
            stderr=file,
        )
    return CpuTokens(process, log)


def write_cpu_tokens(directory: Path) -> None:
    check = Check(Plan("cpu", "tiny", directory), lambda kind, name, value: None)
    found = replies_of(check, "cpu", {})
    new = directory / "small" / f"{FILE}.new"
    new.write_text(json.dumps(found), "utf-8")
    new.replace(directory / "small" / FILE)


if __name__ == "__main__":
    write_cpu_tokens(Path(sys.argv[1]))
