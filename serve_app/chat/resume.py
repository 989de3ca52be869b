"""What an earlier run of a reply has left: what was told of it, and what its plugins answered.

    told:     Thoughts  PluginCall*  Delta Delta Delta
    resumed:                                     Delta Delta … Done      the same bytes go on

A reply that is resumed tells nothing again, runs no pass again that had ended, and sends no call
with effects again. It does not know where this was kept.
"""

from dataclasses import asdict, dataclass
from typing import Protocol

import msgpack

from plugins_svc.sdk.output import Item, PluginOutput
from plugins_svc.sdk.picture import StoredPicture
from serve_app.errors import LeaseLostError

TimedOutput = tuple[PluginOutput, int]  # and how many milliseconds the call took


@dataclass(frozen=True)
class Resume:
    """The events of one choice that were told.

    `run` tells this run's requests to the engine from those of earlier ones, which may not have
    ended yet where their client was lost. `thought_ids` are what the first pass generated,
    None if it has not ended. `num_call_events` of the plugin calls were told. `engine_text` is
    what the engine made of `reply_ids`; `num_told_chars` of the reply's final text were told.
    The counts of cached tokens are those of each pass's first run.
    """

    run: str = ""
    thought_ids: tuple[int, ...] | None = None
    num_cached_thoughts: int = 0
    num_call_events: int = 0
    reply_ids: tuple[int, ...] = ()
    engine_text: str = ""
    num_told_chars: int = 0
    num_cached_reply: int | None = None


NOTHING_TOLD = Resume()


class TurnTakenOverError(LeaseLostError):
    """The turn is no longer this process's: another one tells it, or it is gone. Whoever gets this
    stops, and leaves everything as it is."""


class CallLog(Protocol):
    """What is known about the plugin calls of a turn. `call_id` is
    `TURN-CHOICE-INDEX-DIGEST`, with a digest of what is called.

    Raises StoreUnavailableError, and TurnTakenOverError if the turn is no longer this process's.
    """

    async def find(self, call_id: str) -> TimedOutput | None:
        """The result that stands, if there is one."""
        ...

    async def claim(self, call_id: str) -> bool:
        """Whether the call, which has effects, may be sent now: true at most once, ever, for a
        place in a turn, whatever is called there."""
        ...

    async def record(self, call_id: str, output: TimedOutput) -> TimedOutput:
        """The result that stands: `output`, unless there was one before."""
        ...


class NoCallLog:
    """The CallLog of a reply that lives no longer than its request."""

    async def find(self, call_id: str) -> TimedOutput | None:
        return None

    async def claim(self, call_id: str) -> bool:
        return True

    async def record(self, call_id: str, output: TimedOutput) -> TimedOutput:
        return output


def pack_output(timed: TimedOutput) -> bytes:
    """As a store keeps it."""
    output, ms = timed
    packed: bytes = msgpack.packb((asdict(output), ms))
    return packed


def unpack_output(packed: bytes) -> TimedOutput:
    fields, ms = msgpack.unpackb(packed)
    items = tuple(Item(**item) for item in fields["items"])
    images = tuple(StoredPicture(**image) for image in fields.get("images", ()))
    return PluginOutput(fields["ok"], tuple(fields["lines"]), items, images), ms
