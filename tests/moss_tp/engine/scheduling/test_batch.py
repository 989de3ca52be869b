"""A batch is laid out as documented, and its derived indices are right."""

from array import array

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from moss_tp.engine.scheduling.batch import Batch
from moss_tp.engine.scheduling.chunk import Chunk
from moss_tp.engine.scheduling.scored import Scored, Scoring
from moss_tp.engine.scheduling.sequence import Sequence
from moss_tp.sampling.row import SampledToken
from moss_tp.sampling_params import SamplingParams

Row = tuple[list[int], int, int]

ids = st.integers(0, 2**40)
# Tokens of the chunk, tokens before it, how many of its rows need logits.
rows = st.tuples(st.lists(ids, min_size=1, max_size=5), st.integers(0, 9), st.integers(0, 5))
BLOCK_SIZE = 3


def make_batch(rows: list[Row]) -> Batch:
    """The table of chunk number i holds the blocks 100 * i + 0, 1, …"""
    contexts = [len(tokens) + past for tokens, past, _ in rows]
    tables = [
        [100 * i + block for block in range(-(-context // BLOCK_SIZE))]
        for i, context in enumerate(contexts)
    ]
    parts = (
        [len(rows)],
        [len(tokens) for tokens, *_ in rows],
        contexts,
        [min(count, len(tokens)) for tokens, _, count in rows],
        [len(table) for table in tables],
        *(tokens for tokens, *_ in rows),
        *tables,
    )
    return Batch(np.array([value for part in parts for value in part]))


@given(st.lists(rows, min_size=1, max_size=6))
def test_the_batch_of_chunks_has_their_tokens_and_tables(rows: list[Row]) -> None:
    """A chunk that is sampled ends with its drafted tokens."""
    expected, chunks = make_batch(rows), []
    for i, (tokens, past, count) in enumerate(rows):
        num_drafted = max(0, min(count, len(tokens)) - 1)
        num_known = len(tokens) - num_drafted
        seq = Sequence("r", [0] * past + tokens[:num_known], SamplingParams(), frozenset())
        seq.num_computed = past
        # Blocks beyond the context are not part of the batch.
        seq.block_table = array("q", range(100 * i, 100 * i + 40))
        chunks.append(Chunk(seq, num_known, count > 0, tuple(tokens[num_known:])))
    assert Batch.of(chunks, BLOCK_SIZE).ints.tolist() == expected.ints.tolist()


def test_the_fields_of_a_batch_are_views_of_its_ints() -> None:
    """The broadcast array is read in place: neither side copies."""
    batch = make_batch([([5], 6, 1), ([6, 7], 0, 1)])
    for part in (batch.query_lens, batch.table_lens, batch.token_ids, batch.block_tables):
        assert np.shares_memory(part, batch.ints)


@given(st.lists(rows, min_size=1, max_size=6))
def test_positions_slots_and_logit_rows_by_hand(rows: list[Row]) -> None:
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


@given(st.lists(rows, min_size=1, max_size=6), st.integers(1, 5))
def test_rows_to_score_come_before_the_rest(rows: list[Row], count: int) -> None:
    batch = make_batch(rows)
    seq = Sequence("r", [0], SamplingParams(), frozenset())
    scored = [
        Scored(seq, range(2, 2 + count), list(range(7, 7 + count))),
        Scored(seq, range(1), [9]),
    ]
    both = batch.with_scored(scored)
    again = type(batch)(both.ints.copy())
    assert again.scored_rows.tolist() == [*range(2, 2 + count), 0]
    assert again.targets.tolist() == [*range(7, 7 + count), 9]
    for name in ("query_lens", "context_lens", "num_logits", "table_lens", "token_ids"):
        assert getattr(again, name).tolist() == getattr(batch, name).tolist()
    assert again.block_tables.tolist() == batch.block_tables.tolist()
    assert not len(batch.scored_rows)


def test_the_rows_of_a_prompt_that_are_scored() -> None:
    """Those that are followed by a token of the prompt, each once, whatever was lost since."""
    decode = Sequence("d", [1, 2, 3], SamplingParams(), frozenset())
    decode.num_computed = 2
    params = SamplingParams(prompt_logprobs=1)
    seq = Sequence("s", list(range(10, 20)), params, frozenset())
    scoring = Scoring()
    scoring.add(decode)
    assert len(scoring) == 0
    scoring.add(seq)
    (first,) = scoring.find([Chunk(decode, 1, True, (8, 9)), Chunk(seq, 4, False)])
    assert first == (seq, range(3, 7), [11, 12, 13, 14])
    best = ((3, -0.5), (4, -1.0))
    tokens = [SampledToken(target, -1.0, best) for target in first.targets]
    scoring.note([first], [*[SampledToken(0)] * 3, *tokens])
    assert (seq.num_unscored, seq.max_cached_tokens) == (5, 4)
    seq.num_computed = 2  # preempted, and found so many in the cache
    (second,) = scoring.find([Chunk(seq, 8, True)])
    assert second == (seq, range(2, 7), [15, 16, 17, 18, 19])
    scoring.note(
        [second], [SampledToken(0), *(SampledToken(i, -1.0, best) for i in second.targets)]
    )
    assert (seq.num_unscored, seq.max_cached_tokens) == (0, 9)
    scores = seq.take_scores()
    assert [score.token_id for score in scores] == list(range(11, 20))
    assert {score.top_logprobs for score in scores} == {best[:1]}
    assert len(scoring) == 0
    assert scoring.find([Chunk(seq, 8, True)]) == []
