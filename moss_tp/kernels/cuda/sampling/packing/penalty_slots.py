"""Which counts on the device are whose, and what they lack. No torch.

A slot holds one sequence's counts over the vocabulary. A sequence gets it when it first appears in
a step, filled from its history; from then on, steps append what has been sampled since. The newest
id may still be pending: only the device knows it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary, finalize

from moss_tp.sampling.row import SamplingRow
from moss_tp.sampling.token_history import TokenHistory


@dataclass(eq=False)
class Slot:
    index: int
    num_output: int = -1  # ids of the output that are counted, or will be by the steps so far
    last_row: int = 0  # the sequence's last row in the newest step that it was in
    last_step: int = 0


@dataclass(frozen=True)
class SlotChanges:
    """`fills`: slots to fill anew, before the step. `appends`: pairs of a slot and an id, during
    the step. `slots`: for each row, -1 without penalties."""

    fills: list[tuple[int, TokenHistory]] = field(default_factory=list)
    appends: list[tuple[int, int]] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)


class PenaltySlots:
    """At least as many slots as a step has sequences: those that are not in a step lose theirs
    when others need it, the longest unused first. A step has at most `max_rows` rows."""

    def __init__(self, num_slots: int, max_rows: int) -> None:
        self._free = list(range(num_slots))[::-1]
        self._slots: WeakKeyDictionary[TokenHistory, Slot] = WeakKeyDictionary()
        self._finalizers: dict[int, finalize[..., TokenHistory]] = {}
        self._max_rows = max_rows
        self._step = 0

    @property
    def num_free(self) -> int:
        return len(self._free)

    def update(self, rows: Sequence[SamplingRow]) -> SlotChanges:
        """What the step of `rows` changes; to be called once for each step, in order.

        Raises RuntimeError when the step has more sequences with penalties than there are slots.
        """
        self._step += 1
        changes = SlotChanges()
        first_rows: dict[TokenHistory, SamplingRow] = {}
        for row in rows:
            if row.history is not None:
                first_rows.setdefault(row.history, row)
        for history in first_rows:  # all of them, before one is in want of a slot
            if (slot := self._slots.get(history)) is not None:
                slot.last_step = self._step
        for history, row in first_rows.items():
            slot = self._slots.get(history) or self._take_slot(history)
            self._count(slot, history, row.position - len(row.drafted), changes)
        for i, row in enumerate(rows):
            changes.slots.append(-1)
            if row.history is not None:
                slot = self._slots[row.history]
                slot.last_row = i
                changes.slots[i] = slot.index
        return changes

    def _count(
        self, slot: Slot, history: TokenHistory, num_output: int, changes: SlotChanges
    ) -> None:
        """Counts in `slot` the output's first `num_output` ids, the last of them maybe pending."""
        num_pending = num_output - history.num_output
        if num_pending not in (0, 1):
            raise ValueError(f"{num_pending} tokens of a sequence with penalties are pending")
        new = history.output_since(max(0, slot.num_output))
        # A step that is computed anew has failed before, and may have counted its ids or not.
        is_lost = slot.num_output < 0 or num_output <= slot.num_output
        if is_lost or len(changes.appends) + len(new) > self._max_rows:
            changes.fills.append((slot.index, history))
        else:
            changes.appends.extend((slot.index, token_id) for token_id in new)
        if num_pending:
            changes.appends.append((slot.index, -(1 + slot.last_row)))
        slot.num_output = num_output

    def _take_slot(self, history: TokenHistory) -> Slot:
        if not self._free:
            self._take_away()
        slot = self._slots[history] = Slot(self._free.pop(), last_step=self._step)
        self._finalizers[slot.index] = finalize(history, self._free.append, slot.index)
        return slot

    def _take_away(self) -> None:
        history, slot = min(self._slots.items(), key=lambda item: item[1].last_step)
        if slot.last_step == self._step:
            raise RuntimeError("a step has more sequences with penalties than there are slots")
        self._finalizers[slot.index].detach()
        del self._slots[history]
        self._free.append(slot.index)
