"""Checks G1 to G10 of docs/api.md on what clients wrote down and what the server says at the end.

Each fault is a line that begins with the guarantee that it breaks. It asks nobody anything.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serve_app.chat.draft import seed_of
from serve_app.prompt.exchange import Exchange
from tests.proof.history.record import Act, Read, Record, Stream, canary_of
from tests.proof.history.replay import is_same, made_again

Json = Mapping[str, Any]
TERMINAL = ("done", "error")
RETOLD_FROM = 1_000_000
_STAYS = ("id", "parent", "user", "thoughts", "plugin_calls", "reply", "finish_reason", "seed")


@dataclass(frozen=True)
class Final:
    """A session at the end: its turns in stored order, each as it was read with its make-up. None
    if it was not found. `exchanges` has what prompts are made of, by turn."""

    uid: str
    turns: Sequence[Json] | None
    exchanges: Mapping[str, Exchange]


def faults_of(record: Record, finals: Sequence[Final], effects: Sequence[str]) -> list[str]:
    """All but what has to be made again; see `faults_of_replies`."""
    return [
        *told_faults(record, finals),
        *_sessions(record, finals),
        *_acts(record, finals),
        *(fault for final in finals for fault in _keys(record, final)),
        *_effects(finals, effects),
    ]


def told_faults(record: Record, finals: Sequence[Final] = ()) -> list[str]:
    """What clients can see by themselves."""
    return [
        *record.faults,
        *_reads(record, finals),
        *_streams(record),
        *_foreign(record),
    ]


async def faults_of_replies(finals: Sequence[Final]) -> list[str]:
    """G2, G10: every turn is what its path and its seed make, and nothing else."""
    found = []
    for final in finals:
        by_id = {turn["id"]: turn for turn in final.turns or ()}
        for turn in final.turns or ():
            path: list[Exchange] = []
            parent = turn["parent"]
            while parent is not None and parent in by_id:
                path.insert(0, final.exchanges[parent])
                parent = by_id[parent]["parent"]
            if not is_same(turn, await made_again(path, turn, turn["make_up"])):
                found.append(f"G10 other bytes: turn {turn['id']} is not what its path makes")
    return found


def _sessions(record: Record, finals: Sequence[Final]) -> Iterator[str]:
    """G1, G8: a session is there until it is deleted, and then never again."""
    for final in finals:
        if final.turns is None and final.uid not in record.deleting:
            yield f"G1 lost: session {final.uid}"
        if final.turns is not None and final.uid in record.deleted:
            yield f"G8 not gone: session {final.uid}"
        ids = [turn["id"] for turn in final.turns or ()]
        for turn in final.turns or ():
            before = ids[: ids.index(turn["id"])]
            if turn["parent"] is not None and turn["parent"] not in before:
                yield f"G2 no parent: turn {turn['id']}"
            if not (turn["user"] and (turn["reply"] or turn["finish_reason"] != "stop")):
                yield f"G4 half a turn: {turn['id']}"
            if canary_of(record.owners[final.uid]) not in turn["user"]:
                yield f"G5 foreign: turn {turn['id']}"


def _acts(record: Record, finals: Sequence[Final]) -> Iterator[str]:
    by_uid = {final.uid: final.turns or () for final in finals}
    for act in record.acts:
        if act.state == "open":
            yield f"G7 no end: {act.kind} {act.key}"
        if len({_shown(answer) for answer in act.answers}) > 1:
            yield f"G3 two answers: {act.key}"
        if act.uid not in record.deleting:
            yield from _act(act, by_uid.get(act.uid or "", ()))


def _act(act: Act, turns: Sequence[Json]) -> Iterator[str]:
    """G1, G4, G10: what was acked is there as it was told, what has failed is not."""
    mine = [turn for turn in turns if turn["seed"] == seed_of(act.key)]
    for answer in act.answers[:1]:
        same = [t for t in turns if all(t[n] == answer[n] for n in _STAYS if n in answer)]
        if not same:
            yield f"G1 lost or changed: {act.kind} {act.key}"
        elif not mine:
            yield f"G10 another seed: {act.kind} {act.key}"
    for turn in turns:
        if turn["id"] in act.failed_ids:
            yield f"G4 a trace: the failed turn {turn['id']}"
    if act.state == "refused" and mine:
        yield f"G4 a trace: the refused turn {mine[0]['id']}"


def _shown(answer: Json) -> str:
    return repr(sorted((name, answer[name]) for name in _STAYS if name in answer))


def _keys(record: Record, final: Final) -> Iterator[str]:
    """G3: nobody's turn is there twice; the seed tells whose it is."""
    acts: dict[int, Act] = {seed_of(act.key): act for act in record.acts}
    seeds = Counter(turn["seed"] for turn in final.turns or ())
    users = Counter(turn["user"] for turn in final.turns or ())
    for seed, count in seeds.items():
        if seed not in acts:
            yield f"G10 nobody's seed: {seed} in {final.uid}"
        elif count > 1:
            yield f"G3 doubled: {acts[seed].key} is there {count} times"
        elif acts[seed].tenant != record.owners[final.uid]:
            yield f"G5 foreign: {acts[seed].key} is in another tenant's session"
    asked = Counter(act.user for act in record.acts)
    for user, count in users.items():
        if count > asked[user]:
            yield f"G3 doubled: {user!r} is there {count} times"


def _reads(record: Record, finals: Sequence[Final]) -> Iterator[str]:
    """G1, G2, G8: reads only grow; what was acked before one began is in it."""
    last = max((read.ended for read in record.reads), default=0.0)
    final_reads = [
        Read("", f.uid, last + 1, last + 2, None if f.turns is None else tuple(f.turns))
        for f in finals
    ]
    by_uid: dict[str, list[Read]] = {}
    for read in sorted([*record.reads, *final_reads], key=lambda read: read.began):
        by_uid.setdefault(read.uid, []).append(read)
    for uid, reads in by_uid.items():
        for read in reads:
            if read.turns is None and uid not in record.deleting:
                yield f"G1 lost: session {uid} was not found"
            if read.turns is not None and read.began > record.deleted.get(uid, float("inf")):
                yield f"G8 not gone: a later read of {uid}"
        found = [read for read in reads if read.turns is not None]
        yield from _growth(uid, found)
        yield from _acked_in(record, uid, found)


def _growth(uid: str, reads: Sequence[Read]) -> Iterator[str]:
    for index, read in enumerate(reads):
        later = next((other for other in reads[index + 1 :] if other.began > read.ended), None)
        if later is None:
            continue
        now, then = [[_stays(t) for t in r.turns or ()] for r in (read, later)]
        if then[: len(now)] != now:
            yield f"G2 not append-only: session {uid}"


def _stays(turn: Json) -> str:
    return repr([turn[name] for name in _STAYS])


def _acked_in(record: Record, uid: str, reads: Sequence[Read]) -> Iterator[str]:
    for act in record.acts:
        if act.uid != uid or act.state != "acked":
            continue
        for read in reads:
            if read.began > act.acked_at and not any(
                turn["reply"] == act.answers[0]["reply"] for turn in read.turns or ()
            ):
                yield f"G1 lost: a later read has no turn of {act.key}"
                break


def _streams(record: Record) -> Iterator[str]:
    """G7, and one teller: event N of a turn is the same for every reader, and exactly one is the
    last."""
    told: dict[tuple[str, int], str] = {}
    for stream in record.streams:
        yield from _stream(stream)
        for number, kind, data in stream.events:
            if stream.turn and number >= 0:
                told_before = told.setdefault((stream.turn, number), repr((kind, data)))
                if told_before != repr((kind, data)):
                    yield f"G7 two tellers: event {number} of {stream.turn}"
    yield from _texts(record)


def _stream(stream: Stream) -> Iterator[str]:
    events = [event for event in stream.events if event[0] >= 0]
    numbers = [number for number, _, _ in events]
    is_retold = bool(numbers) and numbers[0] >= RETOLD_FROM
    start = numbers[0] if is_retold else stream.after + 1
    if numbers != [*range(start, start + len(numbers))]:
        yield f"G7 out of order: events {numbers} of {stream.turn} after {stream.after}"
    ends = [number for number, kind, _ in events if kind in TERMINAL]
    if len(ends) > 1 or ends not in ([], numbers[-1:]):
        yield f"G7 terminal events: {ends} of {stream.turn}"
    # One that was cut breaks off, as its connection does: its reader comes back, see `_acts`.
    if stream.is_whole and not ends:
        yield f"G7 no end: a stream of {stream.turn} ends after {numbers[-1:]} as if it were whole"


def _texts(record: Record) -> Iterator[str]:
    """What was told is what was stored."""
    by_turn: dict[str, dict[int, tuple[str, Json]]] = {}
    for stream in record.streams:
        for number, kind, data in stream.events:
            if 0 <= number < RETOLD_FROM:
                by_turn.setdefault(stream.turn, {}).setdefault(number, (kind, data))
    for turn, numbered in by_turn.items():
        events = [numbered[number] for number in sorted(numbered)]
        if len(numbered) != max(numbered) + 1 or events[-1][0] != "done":
            continue
        text = "".join(data["text"] for kind, data in events if kind == "delta")
        if text != events[-1][1]["turn"]["reply"]:
            yield f"G7 told otherwise: {text!r} of {turn}"
        started: set[str] = set()
        for kind, data in events:
            if kind == "plugin" and data["state"] == "started":
                started.add(data["id"])
            elif kind == "plugin" and data["id"] not in started:
                yield f"G7 out of order: the call {data['id']} ended before it started"


def _foreign(record: Record) -> Iterator[str]:
    for read in record.foreign:
        if read.turns is not None:
            yield f"G5 foreign: {read.tenant} read session {read.uid}"


def _effects(finals: Sequence[Final], effects: Sequence[str]) -> Iterator[str]:
    """G9: a call with effects was received at most once; one that has a result was received."""
    for argument, count in Counter(effects).items():
        if count > 1:
            yield f"G9 sent again: {argument} was received {count} times"
    calls = [call for f in finals for turn in f.turns or () for call in turn["plugin_calls"]]
    for call in calls:
        is_done = call["name"] == "Text2Image" and call["state"] == "done"
        if is_done and call["argument"] not in effects:
            yield f"G9 never sent: {call['argument']}"
