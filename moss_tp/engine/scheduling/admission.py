"""When would a new request start? So the queue is bounded by time, not by a count.

The work ahead is played through in the order of service, at the measured speeds: prompts one
after the other, replies side by side, each until its expected end. No sequence starts before the
one ahead of it, without a slot, or without blocks:

    running    ===|                    a reply ends: its slot and blocks are free
    running    =======|
    waiting    ...ppp======|           p: its prompt, computed beside the replies
    new        ......?                 starts when the prompts ahead are computed, with a slot

More work ahead never makes it earlier. An idle engine has none, so no measurement, however wrong,
refuses for ever: the work that is there is done, and measured anew. No torch, no clock.
"""

from heapq import heappop, heappush

from moss_tp.engine.scheduling.scheduler import Scheduler
from moss_tp.engine.scheduling.speeds import Speeds
from moss_tp.engine_config import EngineConfig


class Forecast:
    """The end of the queue as sequences are added to it, in their order.

    A sequence has tokens of its prompt to compute, then steps of its reply, and holds `blocks`.
    Time is counted in steps, in each of which `chunk_size` prompt tokens can be computed.
    """

    def __init__(self, num_slots: int, num_blocks: int, chunk_size: int) -> None:
        self._num_slots = num_slots
        self._num_blocks = num_blocks
        self._free_blocks = float(num_blocks)
        self._chunk_size = chunk_size
        self._ends: list[tuple[float, float]] = []  # heap of ends, each with the blocks it frees
        self.num_steps = 0.0  # until the last sequence is through its prompt
        self.num_prompt_tokens = 0.0  # of all sequences

    def run(self, prompt_tokens: float, reply_steps: float, blocks: float) -> None:
        """A sequence that has its slot and blocks."""
        self._compute(prompt_tokens)
        begin = self.num_steps if prompt_tokens else 0.0
        self._hold(begin + reply_steps, blocks)

    def queue(self, prompt_tokens: float, reply_steps: float, blocks: float) -> None:
        """A sequence that waits behind all others."""
        self.wait(blocks)
        self._compute(prompt_tokens)
        self._hold(self.num_steps + reply_steps, blocks)

    def wait(self, blocks: float) -> None:
        """Lets sequences end until there is a slot, and `blocks` are free."""
        blocks = min(blocks, self._num_blocks)
        while self._ends and (len(self._ends) >= self._num_slots or self._free_blocks < blocks):
            end, freed = heappop(self._ends)
            self._free_blocks += freed
            self.num_steps = max(self.num_steps, end)

    def _compute(self, prompt_tokens: float) -> None:
        self.num_prompt_tokens += prompt_tokens
        self.num_steps += prompt_tokens / self._chunk_size

    def _hold(self, end: float, blocks: float) -> None:
        self._free_blocks -= blocks
        heappush(self._ends, (end, blocks))


class Admission:
    """Reads a scheduler, and the speeds at which it is served. Changes nothing."""

    def __init__(self, scheduler: Scheduler, config: EngineConfig) -> None:
        self.speeds = Speeds()
        self._scheduler = scheduler
        self._config = config

    def expected_wait_s(self, prompt_len: int = 1, priority: int = 0) -> float:
        """Seconds until a new request, not a continuation, would start. 0 while nothing is known,
        or on an idle engine."""
        running = list(self._scheduler.running)
        ahead = self._scheduler.waiting.ahead_of(priority)
        if not self.speeds.is_known or not (running or ahead):
            return 0.0
        blocks = self._scheduler.block_manager
        forecast = Forecast(
            self._config.max_num_seqs, blocks.num_blocks, self._config.mixed_prefill_limit
        )
        # Blocks of a prefix that sequences share are in several tables, and exist once.
        in_tables = sum(len(seq.block_table) for seq in running)
        share = (blocks.num_blocks - blocks.num_free) / in_tables if in_tables else 1.0
        for seq in running:
            prompt = seq.num_uncomputed if seq.num_uncomputed > 1 else 0
            forecast.run(prompt, self.speeds.num_steps_left(seq), share * len(seq.block_table))
        uncached = self.speeds.uncached_share
        for seq in ahead:
            steps = self.speeds.num_steps_left(seq)
            needed = share * blocks.num_needed(seq.num_tokens + int(steps / 2))
            forecast.queue(uncached * seq.num_tokens, steps, needed)
        forecast.wait(share * blocks.num_needed(prompt_len))
        return (
            forecast.num_steps * self.speeds.step_s
            + forecast.num_prompt_tokens * self.speeds.prompt_token_s
        )
