"""A batch survives its way through flat ints."""

from hypothesis import given
from hypothesis import strategies as st

from moss_tp.engine.batch import Batch

ids = st.integers(0, 2**40)
chunk = st.tuples(
    st.lists(ids, min_size=1, max_size=5), st.integers(0, 9), st.lists(ids), st.booleans()
)


@given(st.lists(chunk, min_size=1, max_size=6))
def test_round_trip(chunks: list[tuple[list[int], int, list[int], bool]]) -> None:
    batch = Batch(
        token_ids=tuple(token for tokens, *_ in chunks for token in tokens),
        query_lens=tuple(len(tokens) for tokens, *_ in chunks),
        context_lens=tuple(len(tokens) + past for tokens, past, *_ in chunks),
        block_tables=tuple(tuple(table) for _, _, table, _ in chunks),
        samples=tuple(is_last for *_, is_last in chunks),
    )
    assert Batch.from_ints(batch.to_ints()) == batch


def test_rows_that_sample_are_the_last_of_their_chunk() -> None:
    batch = Batch(
        token_ids=(5, 6, 7, 8, 9, 10),
        query_lens=(3, 1, 2),
        context_lens=(3, 9, 2),
        block_tables=((0,), (1, 2, 3), (4,)),
        samples=(True, False, True),
    )
    assert batch.query_starts == [0, 3, 4, 6]
    assert batch.logit_rows == [2, 5]
