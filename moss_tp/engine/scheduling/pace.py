"""One step behind, or drafts? A device either has its next step queued, or gets one with drafts.

    behind    |--n--|--n+1--|--n+2--|          a token a sequence and step; no device waits
    drafts    |--n--| gap |---n+1---| gap |    more tokens a step, which takes longer for its rows;
                                               n-grams are looked up once the ids of n are known

Drafts are worth the gap where they promise more tokens in the same time. Both are measured: what a
step and a gap take, and how many drafted tokens turn out right. It is told these, and has no clock.
"""

from collections import deque
from statistics import median

from moss_tp.engine.scheduling.drafting import Outlook

NUM_TIMES = 15  # of which the median counts
MIN_TIMES = 3  # before these, nothing is known
MEMORY = 0.75  # of the average outlook, for each further one
PROBE_STEPS = 8  # one behind, until the drafters are asked what they would draft


class Pace:
    """`row_cost` is `DeviceTraits.row_cost`."""

    def __init__(self, row_cost: float) -> None:
        self._row_cost = row_cost
        self._steps: deque[float] = deque(maxlen=NUM_TIMES)
        self._gaps: deque[float] = deque(maxlen=NUM_TIMES)
        self._num_drafted = 0.0  # of a sequence and step
        self._num_expected = 0.0
        self._num_behind = 0  # steps since the last outlook

    def note_step(self, seconds: float) -> None:
        """A step without drafts that took `seconds` of the device."""
        self._steps.append(seconds)

    def note_gap(self, seconds: float) -> None:
        """The device waited for `seconds` from the end of a step until the next."""
        self._gaps.append(seconds)

    def note_outlook(self, outlook: Outlook) -> None:
        """What drafts promise now."""
        self._num_behind = 0
        if outlook.num_decodes:
            drafted = outlook.num_drafted / outlook.num_decodes
            expected = outlook.num_expected / outlook.num_decodes
            self._num_drafted += (1 - MEMORY) * (drafted - self._num_drafted)
            self._num_expected += (1 - MEMORY) * (expected - self._num_expected)

    def note_behind(self) -> bool:
        """A step was launched behind another. Whether an outlook is due."""
        self._num_behind += 1
        return self._num_behind >= PROBE_STEPS

    def should_draft(self, num_decodes: int) -> bool:
        """Whether to wait for the ids of a step and draft, rather than to go one ahead of it.

        The next step has about `num_decodes` rows without drafts.
        """
        if self._num_expected <= 0 or not num_decodes:
            return False
        if len(self._gaps) < MIN_TIMES or len(self._steps) < MIN_TIMES:
            return True  # else neither would ever be measured
        num_drafted = self._num_drafted * num_decodes
        rows_cost = 1 + self._row_cost * (num_decodes - 1)
        time = 1 + self._row_cost * num_drafted / rows_cost + median(self._gaps) / self._step_s
        return 1 + self._num_expected > time

    @property
    def _step_s(self) -> float:
        return max(median(self._steps), 1e-9)
