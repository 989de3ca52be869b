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

from collections.abc import Sequence as Ids
from copy import copy
from heapq import heappop, heappush
from math import inf
from typing import Self

from moss_tp.engine.scheduling.scheduler import Scheduler
from moss_tp.engine.scheduling.sequence import Sequence
from moss_tp.engine.scheduling.speeds import Speeds
from moss_tp.engine_config import EngineConfig

# Of a deadline: what wait and reply may be expected to take. What comes later makes both longer,
# and a server that is full of replies of seconds takes as long to become idle.
PLANNED_SHARE = 0.5
MAX_PLANNED_SHARE = 0.75  # for a reply that takes most of the other share even alone
MAX_SLOWDOWN = 1.5  # of such a reply, by those beside it


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

    def copy(self) -> Self:
        """One that goes on from here."""
        other = copy(self)
        other._ends = list(self._ends)
        return other

    def _compute(self, prompt_tokens: float) -> None:
        self.num_prompt_tokens += prompt_tokens
        self.num_steps += prompt_tokens / self._chunk_size

    def _hold(self, end: float, blocks: float) -> None:
        self._free_blocks -= blocks
        heappush(self._ends, (end, blocks))


class Admission:
    """Reads a scheduler, and the speeds at which it is served. Changes nothing.

    Playing the queue through takes as long as the queue is. So between two steps it is done once
    for a priority, and what arrives then is added at its end: `note_added`. Whoever changes the
    scheduler in another way calls `forget`.
    """

    def __init__(self, scheduler: Scheduler, config: EngineConfig) -> None:
        self.speeds = Speeds()
        self._scheduler = scheduler
        self._config = config
        self._forecasts: dict[int, Forecast] = {}  # by priority

    def expected_wait_s(self) -> float:
        """Seconds until a new request, not a continuation, would start: 0 while nothing is known,
        or on an idle engine. May be called from any thread."""
        return self._wait_s(self._play(0), 1)

    def limit_s(self, deadline_s: float | None, max_tokens: int) -> float:
        """How long a request may wait: so long that its reply still ends in time, beside all that
        were taken in before it. Below 0: it would not, even if it began at once.

        Otherwise a server with too much to do would begin all that it takes in, and end nothing. A
        reply that would hardly end in time even alone is likely to be cut: the longer, the less of
        it counts.
        """
        if deadline_s is None:
            return self._config.max_queue_s
        if deadline_s <= 0:
            return inf  # it expires
        num_ahead = len(self._scheduler.running) + len(self._scheduler.waiting)
        num_seqs = min(num_ahead + 1, self._config.max_num_seqs)
        alone_s = self.speeds.reply_s(max_tokens, 1)
        reply_s = self.speeds.reply_s(max_tokens, num_seqs)
        most_s = MAX_PLANNED_SHARE * deadline_s
        planned_s = min(max(PLANNED_SHARE * deadline_s, MAX_SLOWDOWN * alone_s), most_s)
        if alone_s > most_s:
            reply_s *= max(2 * most_s - alone_s, most_s / MAX_SLOWDOWN) / alone_s
        return planned_s - reply_s

    def wait_s(self, prompt_len: int, priority: int) -> float:
        """`expected_wait_s` of a request that is about to be added."""
        if priority not in self._forecasts:
            forecast = self._play(priority)
            if forecast is None:
                return 0.0
            self._forecasts[priority] = forecast
        return self._wait_s(self._forecasts[priority].copy(), prompt_len)

    def note_added(self, seq: Sequence, priority: int) -> None:
        """A sequence that was queued, and is not a continuation."""
        for later, forecast in self._forecasts.items():
            if later >= priority:
                self._queue(forecast, seq, self._share(self._scheduler.running))

    def forget(self) -> None:
        """Something else changed."""
        self._forecasts.clear()

    def _play(self, priority: int) -> Forecast | None:
        """All that is served before a new request. None where it would not wait."""
        if not self.speeds.is_known:
            return None
        running = list(self._scheduler.running)
        ahead = self._scheduler.waiting.ahead_of(priority)
        if not (running or ahead):
            return None
        num_blocks = self._scheduler.block_manager.num_blocks
        limit = self._config.mixed_prefill_limit
        forecast = Forecast(self._config.max_num_seqs, num_blocks, limit)
        share = self._share(running)
        for seq in running:
            prompt = seq.num_uncomputed if seq.num_uncomputed > 1 else 0
            forecast.run(prompt, self.speeds.num_steps_left(seq), share * len(seq.block_table))
        for seq in ahead:
            self._queue(forecast, seq, share)
        return forecast

    def _share(self, running: Ids[Sequence]) -> float:
        """Blocks of a prefix that sequences share are in several tables, and exist once."""
        blocks = self._scheduler.block_manager
        in_tables = sum(len(seq.block_table) for seq in running)
        return (blocks.num_blocks - blocks.num_free) / in_tables if in_tables else 1.0

    def _queue(self, forecast: Forecast, seq: Sequence, share: float) -> None:
        steps = self.speeds.num_steps_left(seq)
        needed = self._scheduler.block_manager.num_needed(seq.num_tokens + int(steps / 2))
        forecast.queue(self.speeds.uncached_share * seq.num_tokens, steps, share * needed)

    def _wait_s(self, forecast: Forecast | None, prompt_len: int) -> float:
        """Consumes the forecast."""
        if forecast is None:
            return 0.0
        needed = self._scheduler.block_manager.num_needed(prompt_len)
        forecast.wait(self._share(self._scheduler.running) * needed)
        return (
            forecast.num_steps * self.speeds.step_s
            + forecast.num_prompt_tokens * self.speeds.prompt_token_s
        )
