"""The host's part of a decode step is short. The bounds leave room for a slow, busy machine."""

import pytest

from moss_tp.sampling_params import SamplingParams
from tests.moss_tp.engine.stepping.host_time import DEMO, GREEDY, host_time

BUSY = 4  # times slower than the bars, 0.2 ms alone and 0.45 ms for 64 sequences


@pytest.mark.parametrize("params", [GREEDY, DEMO], ids=["greedy", "demo"])
@pytest.mark.parametrize(("num_seqs", "bar_s"), [(1, 0.2e-3), (64, 0.45e-3)])
def test_the_host_is_done_soon(num_seqs: int, bar_s: float, params: SamplingParams) -> None:
    assert host_time(num_seqs, params) < BUSY * bar_s
