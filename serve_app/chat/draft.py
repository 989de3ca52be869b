"""A turn of a session while it is made: from a reply's events to the Turn that is stored.

It runs and stores nothing.
"""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from moss_tp.sampling_params import SamplingParams
from serve_app.chat.events import Done, Event, PluginCall
from serve_app.chat.request import ReplyRequest
from serve_app.sessions.session import Session, StoredCall, Turn


@dataclass
class Draft:
    """A turn while it is made: what was asked under `key`, and what came of it so far.

    `request` has a seed, and the id of the turn as its id. `history` is the path of `session` that
    the turn continues. `began_s` is when, in seconds since 1970.
    """

    request: ReplyRequest
    key: str
    fingerprint: str
    session: Session
    history: tuple[Turn, ...]
    calls: list[StoredCall] = field(default_factory=list)
    done: Done | None = None
    began_s: float = field(default_factory=time.time)

    def add(self, event: Event) -> None:
        """Takes note of an event of the reply."""
        if isinstance(event, Done):
            self.done = event
        elif isinstance(event, PluginCall) and event.state != "started":
            self.calls.append(stored_call(event))

    def turn(self, made_by: Mapping[str, Any]) -> Turn:
        """The turn to store, when the reply is done."""
        assert self.done is not None  # a reply that raises no error ends with one
        usage = self.done.usage
        num_tokens = usage.completion_tokens - usage.reasoning_tokens
        return Turn(
            **asdict(self.done.exchange),
            key=self.key,
            fingerprint=self.fingerprint,
            dropped_turns=self.done.dropped_turns,
            finish_reason=self.done.finish_reason,
            id=self.request.request_id,
            parent=self.history[-1].id if self.history else "",
            seed=self.request.params.seed or 0,
            calls=tuple(self.calls),
            usage=asdict(usage),
            duration_ms=max(0, round((time.time() - self.began_s) * 1000)),
            make_up={
                **made_by,
                "plugins": sorted(self.request.enabled),
                "params": plain_params(self.request.params),
                "max_length": self.request.max_length,
                "max_completion_tokens": self.request.max_completion_tokens,
                "prompt": self.done.prompt_digest,
                "num_tokens": num_tokens,
            },
        )

    def session_with(self, stored: Turn) -> Session:
        """The session as it is when the turn is stored."""
        session = self.session
        return replace(
            session,
            turns=(*self.history, stored),
            tree=(*session.tree, stored),
            created_ms=session.created_ms or stored.created_ms,
        )


def seed_of(key: str) -> int:
    """The seed of a turn with that key, of 63 bits: the same whenever the key is sent again."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little") >> 1


def stored_call(call: PluginCall) -> StoredCall:
    """A call that has ended, as it is stored."""
    assert call.state != "started"
    items = [asdict(item) for item in call.output] if isinstance(call.output, tuple) else None
    return StoredCall(call.id, call.name, call.argument, call.state, items or call.output, call.ms)


def plain_params(params: SamplingParams) -> dict[str, Any]:
    """The parameters as JSON could hold them."""
    return {
        name: [list(v) if isinstance(v, tuple) else v for v in value]
        if isinstance(value, tuple)
        else value
        for name, value in asdict(params).items()
    }
