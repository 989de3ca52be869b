"""Batches for the graph runner's tests, and what a DevicePlan of them has to hold."""

from array import array
from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from moss_tp.engine.scheduling.batch import Batch

BLOCK_SIZE = 4
NUM_BLOCKS = 64
MAX_CONTEXT = 96


def make_batch(chunks: Sequence[tuple[int, int, int]], seed: int = 0) -> Batch:
    """Chunks of `(query_len, context_len, num_logits)`, each with random blocks of the cache."""
    generator = np.random.default_rng(seed)
    table_lens = [-(-context // BLOCK_SIZE) for _, context, _ in chunks]
    columns = list(zip(*chunks, strict=True))
    num_tokens = sum(columns[0])
    ints = array("q", [len(chunks), *columns[0], *columns[1], *columns[2], *table_lens])
    ints.extend(generator.integers(-4, 200, num_tokens).tolist())
    ints.extend(generator.integers(0, NUM_BLOCKS, sum(table_lens)).tolist())
    return Batch(np.frombuffer(ints, np.int64))


@st.composite
def chunk(draw: st.DrawFn, max_rows: int) -> tuple[int, int, int]:
    rows = draw(st.one_of(st.just(1), st.integers(1, max_rows)))
    context = draw(st.integers(rows, MAX_CONTEXT))
    return rows, context, draw(st.integers(0, min(rows, 4)))
