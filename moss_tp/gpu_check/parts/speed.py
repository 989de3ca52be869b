"""Decode and prefill of MOSS's shape with random weights, beside what the card could do."""

from collections.abc import Sequence
from functools import partial
from random import Random
from typing import Any

from moss_tp.engine.llm_engine import LLMEngine
from moss_tp.gpu_check.check import Check
from moss_tp.gpu_check.parts.limits import rates_of
from moss_tp.gpu_check.tools import profile
from moss_tp.gpu_check.tools.engines import drive, opened, requests
from moss_tp.gpu_check.tools.fit import fitting, free_bytes, scale_of
from moss_tp.gpu_check.tools.shapes import MOSS, TINY, Shape
from moss_tp.gpu_check.tools.speeds import NEW, kind_of, prefill, time_decode, time_prefill
from moss_tp.gpu_check.verdict import Verdict, broken

# Batch: tokens of a prompt, and the bar as a share of the limit.
DECODES = {1: (480, 0.85), 8: (480, 0.80), 32: (480, 0.75), 64: (192, None), 128: (192, 0.70)}
PREFILLS = {512: None, 1024: 0.55, 2047: 0.55}
KV_TOKENS = max(batch * (prompt + NEW) for batch, (prompt, _) in DECODES.items())
MAX_NODES = 240
LAYER_NODES = 6  # a block's at most: fewer layers have a lower bar
MAX_IDLE_US = 150
PROFILED_BATCHES, PROFILED_PREFILL = (1, 64), 1024


def run(check: Check) -> None:
    shape = fitting(MOSS, KV_TOKENS, free_bytes(check.device)) if check.is_full else TINY
    decodes = DECODES if check.is_full else {1: (20, 0.0), 4: (9, None)}
    prefills = PREFILLS if check.is_full else {33: 0.0}
    dtype = "float16" if check.is_full else "float32"
    rates = rates_of(check)
    settings: dict[str, Any] = {
        "load_format": "dummy",
        "max_num_seqs": max(decodes),
        "max_num_batched_tokens": 2048,
        "num_speculative_tokens": 0,
        "kv_cache_bytes": None if check.is_full else 1 << 22,
    }
    with opened(check, shape.write(check.directory / "speed"), dtype, **settings) as engine:
        random = Random(0)
        drive(engine, requests(random, max(decodes), 16, 4, shape.vocab_size))
        for batch, (prompt, bar) in decodes.items():
            time_decode(check, engine, shape, dtype, rates, batch, prompt, bar)
        for tokens, bar in prefills.items():
            time_prefill(check, engine, shape, dtype, rates, tokens, bar)
        for batch in PROFILED_BATCHES if check.is_full else (1,):
            profile_decode(check, engine, shape, batch)
        _profile_prefill(check, engine, shape)


def profile_decode(check: Check, engine: LLMEngine, shape: Shape, batch: int) -> None:
    """Steps of a whole batch: time by kernel."""
    decode = requests(
        Random(f"profile {batch}"), batch, 64 if check.is_full else 8, NEW // 2, shape.vocab_size
    )
    events = profile.profiled(lambda: drive(engine, decode), check.device)
    steps = profile.steps_of(events)[-NEW // 4 :]
    flat = [event for step in steps for event in step]
    check.figure(f"{kind_of(shape)}decode of {batch}, by kernel", profile.times(flat, len(steps)))
    if check.device.type == "cuda":
        judge_steps(check, shape, batch, steps)


def _profile_prefill(check: Check, engine: LLMEngine, shape: Shape) -> None:
    tokens = PROFILED_PREFILL if check.is_full else 24
    prompt = requests(Random("prompt"), 1, tokens, 1, shape.vocab_size)
    events = profile.profiled(partial(prefill, engine, prompt), check.device)
    check.figure(f"prefill of {tokens}, by kernel", profile.times(events, 1))


def judge_steps(
    check: Check, shape: Shape, batch: int, steps: Sequence[Sequence[profile.Event]]
) -> None:
    """Kernels of a step, and what is idle between steps. What was not measured does not pass: a
    container may not be allowed to profile."""
    kind = kind_of(shape)
    launches = f"{kind}kernels of a decode step, batch {batch}"
    idle = f"{kind}idle between steps, batch {batch}"
    if len(steps) < 2:
        for name in (launches, idle):
            check.verdict(broken(name, "not measured: the profiler has seen nothing of the device"))
        return
    nodes = MAX_NODES - LAYER_NODES * (MOSS.layers - shape.layers)
    note = scale_of(shape).removeprefix("; ")
    figure = profile.launches(steps)
    check.verdict(Verdict(launches, figure, bar=nodes, sense="at most", note=note))
    bar = MAX_IDLE_US if batch == 64 else None
    check.verdict(Verdict(idle, profile.idle_us(steps), "µs", bar=bar, sense="at most", note=note))
