"""A batch survives its way through flat ints, and its rows are where they belong."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from moss_tp.engine.running.batch import Batch

Row = tuple[list[int], int, int]

ids = st.integers(0, 2**40)
# Tokens of the chunk, tokens before it, how many of its rows want logits.
rows = st.tuples(st.lists(ids, min_size=1, max_size=5), st.integers(0, 9), st.integers(0, 5))
BLOCK_SIZE = 3


def make_batch(rows: list[Row]) -> Batch:
    """The table of chunk number i holds the blocks 100 * i + 0, 1, …"""
    contexts = [len(tokens) + past for tokens, past, _ in rows]
    tables = [
        [100 * i + block for block in range(-(-context // BLOCK_SIZE))]
        for i, context in enumerate(contexts)
    ]
    return Batch(
        query_lens=np.array([len(tokens) for tokens, *_ in rows]),
        context_lens=np.array(contexts),
        num_logits=np.array([min(count, len(tokens)) for tokens, _, count in rows]),
        table_lens=np.array([len(table) for table in tables]),
        token_ids=np.array([token for tokens, *_ in rows for token in tokens]),
        block_tables=np.array([block for table in tables for block in table]),
    )


@given(st.lists(rows, min_size=1, max_size=6))
def test_round_trip(rows: list[Row]) -> None:
    batch = make_batch(rows)
    again = Batch.from_ints(batch.to_ints().tolist())
    for field in batch.__dataclass_fields__:
        assert getattr(again, field).tolist() == getattr(batch, field).tolist()


@given(st.lists(rows, min_size=1, max_size=6))
def test_rows_by_hand(rows: list[Row]) -> None:
    batch = make_batch(rows)
    positions: list[int] = []
    slots: list[int] = []
    logit_rows: list[int] = []
    starts = [0]
    for i, (tokens, past, count) in enumerate(rows):
        chunk = range(past, past + len(tokens))
        positions.extend(chunk)
        slots.extend((100 * i + p // BLOCK_SIZE) * BLOCK_SIZE + p % BLOCK_SIZE for p in chunk)
        starts.append(starts[-1] + len(tokens))
        logit_rows.extend(range(starts[-1] - min(count, len(tokens)), starts[-1]))
    assert batch.positions.tolist() == positions
    assert batch.slots(BLOCK_SIZE).tolist() == slots
    assert batch.logit_rows.tolist() == logit_rows
    assert batch.query_starts.tolist() == starts


def test_tables_are_padded_with_block_0() -> None:
    batch = make_batch([([5], 6, 1), ([6, 7], 0, 1)])
    assert batch.padded_tables().tolist() == [[0, 1, 2], [100, 0, 0]]
