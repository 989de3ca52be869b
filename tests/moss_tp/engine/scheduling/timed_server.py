"""An engine of known speeds on a clock of its own."""

from collections.abc import Sequence as Ids
from dataclasses import replace

from moss_tp.engine.llm_engine import LLMEngine
from moss_tp.engine.request import EngineRequest
from moss_tp.engine.scheduling.batch import Batch
from moss_tp.sampling.row import SampledToken, SamplingRow
from moss_tp.sampling_params import SamplingParams
from tests.moss_tp.engine.scheduling.paged_fake import (
    FAKE_IDS,
    FakeTokenizer,
    PagedFake,
    fake_config,
)

STEP_S = 0.05
PROMPT_TOKEN_S = 0.01
PARAMS = SamplingParams(max_tokens=10, ignore_eos=True)


class TimedFake(PagedFake):
    """Takes what a step would take, on a clock of its own."""

    def __init__(self, num_blocks: int = 200) -> None:
        super().__init__(num_blocks, block_size=4)
        self.now = 1000.0
        self.delays: list[float] = []  # of the next steps
        self.seq_s = 0.0  # what each reply in a step adds

    def execute(self, batch: Batch, rows: Ids[SamplingRow] = ()) -> list[SampledToken]:
        lens = batch.query_lens.tolist()
        num_decodes = lens.count(1)
        self.now += STEP_S * bool(num_decodes) + PROMPT_TOKEN_S * (sum(lens) - num_decodes)
        self.now += self.seq_s * num_decodes
        self.now += self.delays.pop() if self.delays else 0.0
        return super().execute(batch, rows)


class Server:
    """An engine on the clock of its executor, and when each request got its first token."""

    def __init__(self, num_blocks: int = 200, **changes: object) -> None:
        self.executor = TimedFake(num_blocks)
        settings = {"max_num_seqs": 4, "num_speculative_tokens": 0, **changes}
        config = fake_config(**settings)
        clock = lambda: self.executor.now  # noqa: E731
        self.engine = LLMEngine(config, self.executor, FakeTokenizer(), FAKE_IDS, clock)
        self.begun: dict[str, float] = {}

    def say(self, name: str, deadline_s: float | None = None, **changes: object) -> None:
        prompt = [sum(map(ord, name)) % 97, *map(int, f"{len(self.begun):05}"), 1]
        request = EngineRequest(name, prompt, PARAMS, deadline_s=deadline_s)
        self.engine.add_request(replace(request, **changes))  # type: ignore[arg-type]

    def step(self) -> None:
        for name, _ in self.engine.step():
            self.begun.setdefault(name, self.executor.now)

    def finish(self) -> None:
        while self.engine.has_work:
            self.step()

    def warm_up(self) -> None:
        for i in range(8):
            self.say(f"warm {i}")
        self.finish()
