"""Which graph serves which step."""

import pytest

from moss_tp.engine.graphs.buckets import bucket_of, bucket_rows
from moss_tp.engine.graphs.limits import step_limits
from moss_tp.engine_config import EngineConfig
from tests.moss_tp.engine.graphs.batches import make_batch


def buckets(max_num_seqs: int, drafts: int = 0, max_rows: int = 1024) -> tuple[int, ...]:
    config = EngineConfig(
        "m",
        max_model_len=64,
        max_num_seqs=max_num_seqs,
        num_speculative_tokens=drafts,
        max_num_batched_tokens=max_rows,
    )
    return bucket_rows(step_limits(config))


def test_decodes_have_few_rows_to_spare() -> None:
    to_64 = (1, 2, 4, *range(8, 65, 8))
    assert buckets(64) == to_64
    assert buckets(128) == (*to_64, 80, 96, 112, 128)
    assert buckets(100) == (*to_64, 80, 96, 100)
    assert buckets(3) == (1, 2, 3)
    assert buckets(1) == (1,)


def test_drafted_rows_go_on_to_the_largest_verification() -> None:
    assert buckets(64, 7) == (1, 2, 4, *range(8, 65, 8), *range(96, 513, 32))
    assert buckets(4, 7) == (1, 2, 4, 8, 16, 24, 32)
    assert buckets(64, 7, max_rows=100) == (1, 2, 4, *range(8, 65, 8), 96, 100)


@pytest.mark.parametrize(
    ("chunks", "rows"),
    [
        ([(1, 5, 1)], 1),
        ([(1, 5, 1)] * 3, 4),
        ([(1, 5, 1), (8, 20, 8)], 16),  # one with drafts, one without
        ([(16, 20, 1), (1, 9, 1)], 24),  # the end of a prompt
        ([(16, 20, 0)], 16),
        ([(17, 20, 1)], None),
        ([(17, 20, 1), (1, 9, 1)], None),
        ([(16, 40, 1)] * 33, None),
    ],
)
def test_the_smallest_graph_that_holds_it(
    chunks: list[tuple[int, int, int]], rows: int | None
) -> None:
    assert bucket_of(make_batch(chunks), buckets(64, 7)) == rows
