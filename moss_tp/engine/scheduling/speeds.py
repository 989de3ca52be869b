"""What a step, a prompt token and a reply cost here: measured while the engine works. No clock.

    a step takes   step_s + prompt_token_s * (tokens of prompts in it)

Both are the median of the last steps: one that hung, or the first, which compiles and loads,
changes little. Replies and cached prompts are averages in which the last ones count most.
"""

from collections import deque
from statistics import median

from moss_tp.engine.scheduling.sequence import Sequence
from moss_tp.engine.scheduling.step_line import StepLine

NUM_STEPS = 32  # that are remembered
MIN_STEPS = 3  # before these, nothing is known
MIN_STEP_S = 1e-9  # a shorter one is the clock's fault
MEMORY = 0.98  # of an average, for each further reply
REPLY_TOKENS_AT_START = 64.0  # counts as one reply
MIN_LEFT = 0.25  # of the mean: what is left of a reply that is longer already


class Speeds:
    def __init__(self) -> None:
        self._step_s: deque[float] = deque(maxlen=NUM_STEPS)
        self._prompt_token_s: deque[tuple[float, int]] = deque(maxlen=NUM_STEPS)
        self._whole = StepLine()
        # Tokens and number of replies: of first passes, and of the next passes that follow them.
        self._first = [REPLY_TOKENS_AT_START, 1.0]
        self._next = [0.0, 0.0]
        self._prompts = [1.0, 1.0]  # tokens, and those that were not cached

    @property
    def is_known(self) -> bool:
        """False before enough was measured."""
        return max(len(self._step_s), len(self._prompt_token_s)) >= MIN_STEPS

    @property
    def step_s(self) -> float:
        """Seconds of a step without prompts."""
        return median(self._step_s) if self._step_s else 0.0

    @property
    def prompt_token_s(self) -> float:
        """Seconds that one token of a prompt adds; a long chunk counts more than a short one."""
        samples = sorted(self._prompt_token_s)
        half = sum(num_tokens for _, num_tokens in samples) / 2
        for seconds, num_tokens in samples:
            half -= num_tokens
            if half <= 0:
                return seconds
        return 0.0

    @property
    def uncached_share(self) -> float:
        """What the prefix cache does not have, of an average prompt."""
        return self._prompts[1] / self._prompts[0]

    def num_steps_left(self, seq: Sequence) -> float:
        """Expected tokens until the slot of `seq` is free: of its reply, and of the next
        passes that follow it, which go ahead of all others."""
        tokens, replies = self._next if seq.is_next_pass and self._next[1] else self._first
        mean = tokens / replies
        left = max(mean - seq.num_output_tokens, MIN_LEFT * mean)
        left = min(left, seq.params.max_tokens - seq.num_output_tokens)
        return left if seq.is_next_pass else left + self._next[0] / self._first[1]

    def reply_s(self, max_tokens: int, num_seqs: int) -> float:
        """Expected seconds that a new request computes for, of a reply of at most `max_tokens` and
        of the next passes that follow it, beside others: `num_seqs` with itself."""
        tokens, replies = self._first
        num_steps = min(tokens / replies, max_tokens) + self._next[0] / replies
        return self._whole.seconds(num_seqs) * num_steps

    def note_step(self, seconds: float, num_decodes: int, num_prompt_tokens: int) -> None:
        """A step that took `seconds`, in which that many sequences decoded."""
        if seconds < MIN_STEP_S:
            return
        if num_decodes:
            self._whole.note(seconds, num_decodes)
        step_s = self.step_s if num_decodes else 0.0
        prompt_s = self.prompt_token_s * num_prompt_tokens
        if num_decodes and not step_s:
            step_s = max(0.0, seconds - prompt_s)
        if num_prompt_tokens and not prompt_s:
            prompt_s = max(0.0, seconds - step_s)
        # A step that takes longer than was expected does so in all its parts.
        ratio = seconds / (step_s + prompt_s)
        if num_decodes:
            self._step_s.append(step_s * ratio)
        if num_prompt_tokens:
            self._prompt_token_s.append((prompt_s * ratio / num_prompt_tokens, num_prompt_tokens))

    def note_end(self, seq: Sequence) -> None:
        """A sequence that ended. Nothing, if it had not begun. The reply of a resumed one counts as
        a whole; one that time has cut does not count: too much work would make replies look short,
        and let in more of it."""
        is_cut = seq.finish_reason == "length" and seq.num_output_tokens < seq.params.max_tokens
        if is_cut or seq.num_output_tokens == seq.num_told_tokens:
            return
        self._first = [MEMORY * total for total in self._first]
        self._next = [MEMORY * total for total in self._next]
        self._prompts = [MEMORY * total for total in self._prompts]
        totals = self._next if seq.is_next_pass else self._first
        totals[0] += seq.num_output_tokens
        totals[1] += 1
        self._prompts[0] += seq.num_prompt_tokens
        self._prompts[1] += seq.num_prompt_tokens - seq.num_cached_tokens
