"""The host's part of a decode step with the GPU's runner, on a device that does nothing.

The bounds leave room for a slow, busy machine.
"""

from functools import partial
from typing import Any

import pytest

from moss_tp import LLM
from moss_tp.accelerator.null import NullAccelerator
from moss_tp.engine.request import EngineRequest
from moss_tp.sampling_params import SamplingParams
from tests.moss_tp.engine.stepping.host_time import step_time
from tests.support.devices.cuda_on_cpu import CudaOnCpu

NUM_STEPS = 100
BUSY = 4  # times slower than the bars, 0.25 ms alone and 0.6 ms for 64 sequences
PARAMS = {
    "demo": SamplingParams(max_tokens=200, ignore_eos=True),
    "logprobs": SamplingParams(max_tokens=200, ignore_eos=True, logprobs=5),
}


@pytest.mark.parametrize("params", PARAMS.values(), ids=PARAMS)
@pytest.mark.parametrize(("num_seqs", "bar_s"), [(1, 0.25e-3), (64, 0.6e-3)])
def test_the_host_is_done_soon(
    tiny_model: str, num_seqs: int, bar_s: float, params: SamplingParams
) -> None:
    settings: dict[str, Any] = {
        "executor": partial(CudaOnCpu, accelerator=NullAccelerator()),
        "kv_cache_bytes": 1 << 25,
        "num_threads": 1,
        "num_speculative_tokens": 0,
    }
    with LLM(tiny_model, device="cuda", dtype="float32", **settings) as llm:
        engine = llm.engine
        for i in range(num_seqs):
            engine.add_request(EngineRequest(str(i), [(i + 7 * k) % 90 for k in range(20)], params))
        for _ in range(12):
            engine.step()
        assert len(engine.scheduler.running) == num_seqs
        assert step_time(engine, NUM_STEPS) < BUSY * bar_s
