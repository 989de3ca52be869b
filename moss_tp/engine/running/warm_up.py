"""A few steps of growing size before the first request, for a server.

They page in weights, compile kernels, and teach the executor how long steps take, so that a stuck
one is noticed soon. What they leave in the KV cache is overwritten before it is read.
"""

import time
from array import array
from collections.abc import Callable, Iterator

import numpy as np

from moss_tp.engine.running.executor import Executor
from moss_tp.engine.scheduling.batch import Batch
from moss_tp.engine_config import EngineConfig

GROWTH = 4  # of the number of tokens, as from one `StepSize.kind` to the next
BUDGET_S = 5.0


def warm_up(
    executor: Executor, config: EngineConfig, clock: Callable[[], float] = time.perf_counter
) -> None:
    """Runs steps of each `StepSize.kind`, for about BUDGET_S seconds at most.

    On a large model without a GPU that is one decode, for a full step may take minutes there.
    `config` is resolved; nothing else may use `executor` meanwhile. Raises EngineDeadError.
    """
    start = before = clock()
    for batch in _batches(config, executor.num_blocks):
        executor.submit(batch, ()).result()
        now = clock()
        if now + GROWTH * (now - before) - start > BUDGET_S:
            return
        before = now


def _batches(config: EngineConfig, num_blocks: int) -> Iterator[Batch]:
    """Growing steps up to `config.max_num_batched_tokens`, with as much context as the cache holds.

    So none needs more memory than a step of requests may need.
    """
    num_tokens, limit = 1, config.max_num_batched_tokens
    num_full = num_blocks // _blocks(config.context_length, config)  # sequences; 1 at least
    while True:
        if num_tokens <= config.max_num_seqs:
            yield _step([1] * min(num_tokens, num_blocks), num_blocks, config)
        num_seqs = min(max(1, num_tokens // GROWTH), num_full, config.max_num_seqs)
        share, rest = divmod(max(2, num_tokens), num_seqs)
        chunks = [min(share + (i < rest), config.context_length) for i in range(num_seqs)]
        yield _step(chunks, num_blocks, config)
        if num_tokens == limit:
            return
        num_tokens = min(GROWTH * num_tokens, limit)


def _step(chunks: list[int], num_blocks: int, config: EngineConfig) -> Batch:
    """A step with the last tokens of each sequence, as many as `chunks` says; they share the
    cache."""
    num_seqs = len(chunks)
    table_len = min(num_blocks // num_seqs, _blocks(config.context_length, config))
    context = min(table_len * config.block_size, config.context_length)
    num_logits = [min(chunk, 1 + config.num_speculative_tokens) for chunk in chunks]
    ints = array("q", [num_seqs, *chunks])
    ints.extend([context] * num_seqs)
    ints.extend(num_logits)
    ints.extend([table_len] * num_seqs)
    ints.extend([0] * sum(chunks))
    ints.extend(range(num_seqs * table_len))
    return Batch(np.frombuffer(ints, np.int64))


def _blocks(num_tokens: int, config: EngineConfig) -> int:
    return -(-num_tokens // config.block_size)
