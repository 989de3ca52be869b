"""What an engine has to do, for whoever decides how many engines there should be. No torch."""

from collections.abc import Iterable
from dataclasses import dataclass

from moss_tp.engine.scheduling.scheduler import Scheduler
from moss_tp.engine.scheduling.sequence import Sequence
from moss_tp.engine.scheduling.speeds import Speeds


@dataclass(frozen=True)
class EngineLoad:
    """Requests that wait or run, and the tokens that they take in all, those that are computed
    already included: of their prompts what is not cached, and their expected replies.
    `held_blocks` are those of running sequences; `num_slots` sequences run at once."""

    num_requests: int
    waiting_tokens: float
    running_tokens: float
    held_blocks: int
    num_blocks: int
    num_slots: int


def load_of(scheduler: Scheduler, speeds: Speeds, num_slots: int) -> EngineLoad:
    """May be called from any thread; takes a millisecond for a thousand sequences."""
    blocks = scheduler.block_manager
    waiting, running = list(scheduler.waiting), list(scheduler.running)
    return EngineLoad(
        num_requests=len(waiting) + len(running),
        waiting_tokens=_tokens(waiting, speeds),
        running_tokens=_tokens(running, speeds),
        held_blocks=blocks.num_blocks - blocks.num_free,
        num_blocks=blocks.num_blocks,
        num_slots=num_slots,
    )


def _tokens(seqs: Iterable[Sequence], speeds: Speeds) -> float:
    return sum(
        _prompt(seq, speeds) + seq.num_output_tokens + speeds.num_steps_left(seq) for seq in seqs
    )


def _prompt(seq: Sequence, speeds: Speeds) -> float:
    """Of one that waits, what an average prompt would take. A preempted one has its own."""
    if seq.block_table or seq.num_preemptions:
        return seq.num_prompt_tokens - seq.num_cached_tokens
    return speeds.uncached_share * seq.num_prompt_tokens
