"""What the scripts of live turns answer, as data."""

import time
from dataclasses import replace
from typing import Any

from serve_app.live.event import LiveEvent, unpack
from serve_app.live.record import Hold, num_generated, unpack_ticket, unpack_turn
from serve_app.live.store import GivenUp, Standing, TakenUp


def taken_up_of(
    token: str, is_stale: int, left_ms: bytes, record: list[bytes], events: list[bytes]
) -> TakenUp:
    fields = dict(zip(record[::2], record[1::2], strict=True))
    cancel: Any = fields[b"cancel"].decode()
    ticket = unpack_ticket(fields.get(b"ticket", b""))
    return TakenUp(
        hold=Hold(replace(unpack_turn(fields[b"turn"]), ticket=ticket), token),
        attempt=int(fields[b"attempts"]),
        deadline=time.monotonic() + int(left_ms) / 1000,
        cancel=cancel,
        events=events_of(events, 0) or (),
        is_stale=bool(is_stale),
    )


def given_up_of(ticket: bytes | None, events: list[bytes]) -> GivenUp:
    """Events that cannot be read cost nothing."""
    try:
        generated = num_generated(events_of(events, 0) or ())
    except (ValueError, TypeError):
        generated = 0
    return GivenUp(unpack_ticket(ticket or b""), generated)


def events_of(found: list[bytes] | None, start: int) -> tuple[LiveEvent, ...] | None:
    if found is None:
        return None
    return tuple(LiveEvent(number, unpack(each)) for number, each in enumerate(found, start))


def standing_of(result: list[Any]) -> Standing:
    is_held, cancel = result
    return Standing(bool(is_held), cancel.decode())
