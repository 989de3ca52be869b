"""A few steps of growing size before the first request, for a server.

They page in weights, compile kernels, and teach the executor how long steps take, so that a stuck
one is noticed soon. What they leave in the KV cache is overwritten before it is read.
"""

import time
from array import array
from collections.abc import Callable

import numpy as np

from moss_tp.engine.running.batch import Batch
from moss_tp.engine.running.executor import Executor
from moss_tp.engine_config import EngineConfig

GROWTH = 4  # of the number of tokens from step to step
BUDGET_S = 5.0


def warm_up(
    executor: Executor, config: EngineConfig, clock: Callable[[], float] = time.perf_counter
) -> None:
    """Runs steps up to `config.max_num_batched_tokens`, for about BUDGET_S seconds at most.

    On a large model without a GPU that is one decode, for a full step may take minutes there.
    `config` is resolved; nothing else may use `executor` meanwhile. Raises EngineDeadError.
    """
    start = before = clock()
    size = 0
    while size < config.max_num_batched_tokens:
        size = min(GROWTH * size or 1, config.max_num_batched_tokens)
        executor.execute(_largest(size, config), ())
        now = clock()
        if now + GROWTH * (now - before) - start > BUDGET_S:
            return
        before = now


def _largest(num_tokens: int, config: EngineConfig) -> Batch:
    """A step of about `num_tokens`, no smaller in anything else than any step of so many.

    All sequences share the blocks of one full context, and their tokens are equal.
    """
    num_seqs = min(num_tokens, config.max_num_seqs)
    chunk = min(num_tokens // num_seqs, config.context_length)
    num_logits = min(chunk, 1 + config.num_speculative_tokens)
    table_len = -(-config.context_length // config.block_size)
    ints = array("q", [num_seqs])
    for of_each in (chunk, config.context_length, num_logits, table_len):
        ints.extend([of_each] * num_seqs)
    ints.extend([0] * (num_seqs * chunk))
    ints.extend([*range(table_len)] * num_seqs)
    return Batch(np.frombuffer(ints, np.int64))
