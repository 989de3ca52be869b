"""A graph runner by itself, without an engine: sequences with a table each, steps by hand."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from moss_tp.accelerator.base import Accelerator
from moss_tp.engine.graphs.graph_runner import GraphRunner
from moss_tp.engine.graphs.step_slot import GraphStep
from moss_tp.engine.graphs.wait import wait_for
from moss_tp.engine.running.worker import RankSpec, build_rank
from moss_tp.engine.scheduling.batch import Batch
from moss_tp.engine_config import EngineConfig
from moss_tp.sampling.row import SamplingRow
from moss_tp.sampling_params import SamplingParams

BLOCK_SIZE = 16
TABLE_LEN = 4
GREEDY = SamplingParams(temperature=0, repetition_penalty=1)


def open_runner(model: str, accelerator: Accelerator, **settings: Any) -> GraphRunner:
    fixed: dict[str, Any] = {
        "device": "cuda",
        "dtype": "float32",
        "max_model_len": TABLE_LEN * BLOCK_SIZE,
        "kv_cache_bytes": 1,  # nobody looks for memory
        "max_num_seqs": 4,
        "max_num_batched_tokens": 64,
        "num_speculative_tokens": 3,
    }
    config = EngineConfig(model, **(fixed | settings))
    runner = build_rank(RankSpec(config, 0, "cpu", ("", 0), 1, accelerator))
    assert isinstance(runner, GraphRunner)
    runner.allocate(num_blocks=4 * TABLE_LEN)
    return runner


@dataclass
class Row:
    """Sequence `number` of up to four, `ids` behind `num_before` computed ones; `num_logits` are
    sampled, for output tokens from `position`, and the first `num_scored` say how probable the next
    one was."""

    number: int
    ids: Sequence[int]
    num_before: int = 0
    num_logits: int = 1
    position: int = 0
    params: SamplingParams = field(default_factory=lambda: GREEDY)
    num_scored: int = 0


def launch(runner: GraphRunner, *rows: Row) -> GraphStep:
    lens = [len(row.ids) for row in rows]
    contexts = [row.num_before + len(row.ids) for row in rows]
    tables = [-(-context // BLOCK_SIZE) for context in contexts]
    ints = array("q", [len(rows), *lens, *contexts, *(row.num_logits for row in rows), *tables])
    for row in rows:
        ints.extend(row.ids)
    for row, count in zip(rows, tables, strict=True):
        ints.extend(range(row.number * TABLE_LEN, row.number * TABLE_LEN + count))
    sampling = [
        SamplingRow(row.params, seed=row.number, position=row.position + i)
        for row in rows
        for i in range(row.num_logits)
    ]
    batch = Batch(np.frombuffer(ints, np.int64))
    starts = batch.query_starts.tolist()
    pairs = [
        (start + i, row.ids[i + 1])
        for row, start in zip(rows, starts, strict=False)
        for i in range(row.num_scored)
    ]
    if pairs:
        scored_rows, targets = zip(*pairs, strict=True)
        ints = array("q", [-1 - len(pairs), *scored_rows, *targets]) + ints
    return runner.launch(Batch(np.frombuffer(ints, np.int64)), sampling)


def read(step: GraphStep) -> list[int]:
    """The sampled ids, once the step has ended."""
    wait_for(step.is_done, 60)
    return [token.token_id for token in step.tokens()]
