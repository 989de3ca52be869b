"""The host's work a decode step, on a device that takes no time and says the same token always."""

import time
from collections.abc import Sequence
from statistics import median

from moss_tp.engine.llm_engine import LLMEngine
from moss_tp.engine.request import EngineRequest
from moss_tp.engine.running.driver import Driver
from moss_tp.engine.running.runner import EndedStep, PendingStep
from moss_tp.engine.scheduling.batch import Batch
from moss_tp.sampling.row import SampledToken, SamplingRow
from moss_tp.sampling_params import SamplingParams
from tests.moss_tp.engine.running.driver_fakes import DeviceRunner, FakeGroup
from tests.moss_tp.engine.scheduling.paged_fake import FAKE_IDS, FakeTokenizer, fake_config

GREEDY = SamplingParams(temperature=0, repetition_penalty=1, max_tokens=1000, ignore_eos=True)
DEMO = SamplingParams(max_tokens=1000, ignore_eos=True)  # the server's defaults, with a penalty
NUM_STEPS = 150


class NullRunner(DeviceRunner):
    """Each sampled token is number 5. It keeps no record of its steps."""

    def launch(self, batch: Batch, rows: Sequence[SamplingRow]) -> PendingStep:
        return EndedStep([SampledToken(5)] * len(rows))


def host_time(num_seqs: int, params: SamplingParams, num_drafts: int = 0) -> float:
    """Seconds of this thread a step: the median of NUM_STEPS, in contexts of 200 to 500 tokens."""
    config = fake_config(
        device="cuda", max_model_len=2048, block_size=16, num_speculative_tokens=num_drafts
    )
    driver = Driver(NullRunner(FakeGroup(1)).as_runner, 64 * 128, 600)
    engine = LLMEngine(config, driver, FakeTokenizer(), FAKE_IDS)
    for i in range(num_seqs):
        prompt = [(i + 7 * k) % 90 for k in range(200 + 3 * i)]
        engine.add_request(EngineRequest(str(i), prompt, params))
    while any(seq.num_output_tokens < 3 for seq in engine.scheduler.running) or (
        len(engine.scheduler.running) < num_seqs
    ):
        engine.step()
    seconds = step_time(engine, NUM_STEPS)
    engine.close()
    return seconds


def step_time(engine: LLMEngine, num_steps: int) -> float:
    """Seconds of this thread a step: the median of the next `num_steps`."""
    times = []
    for _ in range(num_steps):
        start = time.thread_time()
        engine.start_step()
        engine.take_deltas()
        engine.finish_step()
        times.append(time.thread_time() - start)
    return median(times)


if __name__ == "__main__":
    for name, params in {"greedy": GREEDY, "demo": DEMO}.items():
        for num_seqs in (1, 64):
            print(f"{name} {num_seqs}: {1e3 * host_time(num_seqs, params):.3f} ms")
