"""Rows of a step to the block of ints that the device reads.

It runs in every step, before anything is launched: few operations a row, and settings that a
request keeps are packed once.
"""

import math
from collections.abc import Sequence
from struct import Struct

import numpy as np
from numpy.typing import NDArray

from moss_tp.kernels.cuda.sampling.packing.block import (
    HAS_MORE_ENTRIES,
    NUM_APPENDS,
    RECORD,
    BlockLayout,
    Kind,
)
from moss_tp.kernels.cuda.sampling.packing.penalty_slots import SlotChanges
from moss_tp.sampling import draw
from moss_tp.sampling.processors import MIN_PENALTY, logit_biases
from moss_tp.sampling.row import SamplingRow
from moss_tp.sampling_params import SamplingParams

Ints = NDArray[np.int32]

# A record, see `block`: what changes from token to token stands before and after what stays.
SETTINGS = Struct("<3d3f3i")
RECORD_OF_ROW = Struct(f"<qqd{SETTINGS.size}s6i")
MAX_CACHED = 4096
KINDS = {
    draw.BEST_64: Kind.BEST_64,
    draw.BEST_256: Kind.BEST_256,
    draw.BEST_OF_TOP_P: Kind.TOP_P,
    draw.VOCAB: Kind.VOCAB_CUT,
}


class Encoder:
    """Of a model's rows. `layout` is the block's."""

    def __init__(self, layout: BlockLayout, vocab_size: int) -> None:
        self._layout = layout
        self._vocab_size = vocab_size
        self._cache: dict[int, tuple[SamplingParams, bytes]] = {}

    def encode(
        self, rows: Sequence[SamplingRow], changes: SlotChanges, block: Ints, num_rows: int
    ) -> Ints | None:
        """Fills `block` for `num_rows` rows, of which those beyond `rows` are idle. Returns all
        entries `(2, N)` if the block has too few places for them: they are the step's
        `more_entries` then."""
        entries = Entries()
        records = [self._record(rows, i, slot, entries) for i, slot in enumerate(changes.slots)]
        ints = np.frombuffer(b"".join(records), np.int32)
        start = self._layout.records.start
        block[start : start + len(ints)] = ints
        block[start + len(ints) : start + num_rows * RECORD] = 0
        num_appends = len(changes.appends)
        block[NUM_APPENDS] = num_appends
        if num_appends:
            appends = block[self._layout.appends].reshape(2, -1)
            appends[:, :num_appends] = np.array(changes.appends, np.int32).T
        return self._write_entries(entries, block)

    def _write_entries(self, entries: "Entries", block: Ints) -> Ints | None:
        has_more = len(entries.ids) > self._layout.max_entries
        block[HAS_MORE_ENTRIES] = has_more
        if not entries.ids:
            return None
        values = np.array(entries.values, np.float32).view(np.int32)
        packed = np.stack((np.array(entries.ids, np.int32), values))
        if has_more:
            return packed
        block[self._layout.entries].reshape(2, -1)[:, : packed.shape[1]] = packed
        return None

    def _record(
        self, rows: Sequence[SamplingRow], index: int, slot: int, entries: "Entries"
    ) -> bytes:
        row = rows[index]
        bonus, eos_id = 0.0, -1
        if row.eos_id is not None and row.params.temperature and (bonus := row.eos_bonus):
            eos_id = row.eos_id
        num_drafted = draft_id = 0
        if row.drafted and slot >= 0:
            num_drafted, draft_id = len(row.drafted), row.drafted[-1]
            if index == 0 or not _follows(row, rows[index - 1]):
                raise ValueError("the rows of a drafted sequence do not lie side by side")
        first = len(entries.ids)
        entries.add(row)
        cached = self._cache.get(id(row.params))  # its params are alive, so the id is theirs
        return RECORD_OF_ROW.pack(
            row.seed,
            row.position,
            bonus,
            cached[1] if cached is not None else self._settings(row.params),
            eos_id,
            slot,
            num_drafted,
            draft_id,
            first,
            len(entries.ids),
        )

    def _settings(self, params: SamplingParams) -> bytes:
        if len(self._cache) >= MAX_CACHED:
            self._cache.clear()
        settings = _pack(params, self._vocab_size)
        self._cache[id(params)] = (params, settings)
        return settings


class Entries:
    """What is added to single logits, row after row: each id once a row."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.values: list[float] = []

    def add(self, row: SamplingRow) -> None:
        params = row.params
        if not (params.logit_bias or row.blocked_ids or (params.is_greedy and row.eos_bonus)):
            return
        values = dict(logit_biases(row))
        values.update(dict.fromkeys(row.blocked_ids, -math.inf))
        self.ids += values.keys()
        self.values += values.values()


def _pack(params: SamplingParams, vocab_size: int) -> bytes:
    return SETTINGS.pack(
        max(params.temperature, draw.MIN_TEMPERATURE),
        params.top_p,
        math.log(params.min_p) if params.min_p else -math.inf,
        max(params.repetition_penalty, MIN_PENALTY),
        params.presence_penalty,
        params.frequency_penalty,
        _kind(params, vocab_size),
        min(params.top_k or vocab_size, vocab_size),
        -1 if params.logprobs is None else params.logprobs,
    )


def _kind(params: SamplingParams, vocab_size: int) -> Kind:
    if params.is_greedy:
        return Kind.GREEDY
    kind = KINDS[draw.choose_method(params, vocab_size)]
    return Kind.VOCAB if kind == Kind.VOCAB_CUT and not params.top_k else kind


def _follows(row: SamplingRow, before: SamplingRow) -> bool:
    return before.history is row.history and before.drafted == row.drafted[:-1]
