"""Makes a stored turn again, from what is stored with it, and says whether it is the same.

Calls are not sent again: what they answered is stored. A reply that was cut is made up to its
number of tokens. Other weights, code or settings may give other bytes, so nothing is made then.
"""

import time
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from moss_tp.sampling_params import SamplingParams
from plugins_svc.sdk.output import Item, PluginOutput
from plugins_svc.sdk.picture import StoredPicture
from serve_app.chat.events import Done
from serve_app.chat.reply import Replier
from serve_app.chat.request import ReplyRequest
from serve_app.chat.resume import TimedOutput
from serve_app.chat.turn import MakeUp
from serve_app.errors import TurnNotFoundError
from serve_app.sessions.session import Session, StoredCall, Turn, has_images, new_token
from serve_app.sessions.tree import path_to

# Of the make-up, what is the request's own; the rest says what made the reply.
_ASKED = {"plugins", "params", "max_length", "max_completion_tokens", "prompt", "num_tokens"}
_TEXTS = ("thoughts", "commands", "results", "reply")
_CUT = {"length", "cancelled"}


@dataclass(frozen=True)
class Replayed:
    """`differences` of what the turn was made of, as pairs of then and now: with any, nothing was
    made. `changed` names the texts whose bytes are others, and `reply` is the one made now.
    """

    differences: Mapping[str, tuple[Any, Any]]
    changed: tuple[str, ...] = ()
    reply: str | None = None


class Replays:
    """Makes turns again with `replier`, each within `max_time_s`."""

    def __init__(self, replier: Replier, make_up: MakeUp | None, max_time_s: float) -> None:
        self._replier = replier
        self._make_up = make_up
        self._max_time_s = max_time_s

    async def replay(self, session: Session, turn_id: str) -> Replayed:
        """Raises TurnNotFoundError, for a turn without a make-up, too, and what replies raise."""
        turn = next((turn for turn in session.tree if turn.id == turn_id), None)
        if turn is None or "params" not in turn.make_up:
            raise TurnNotFoundError("the session has no such turn that could be made again")
        differences = _differences(turn.make_up, await self._made_by())
        if differences:
            return Replayed(differences)
        request = _request(session, turn, time.monotonic() + self._max_time_s)
        prompt = await self._replier.prompt(request)
        if prompt.digest != turn.make_up["prompt"]:
            return Replayed({"prompt": (turn.make_up["prompt"], prompt.digest)})
        request = replace(request, prompt=prompt)
        async with aclosing(self._replier.reply(request)) as events:
            (done,) = [event async for event in events if isinstance(event, Done)]
        made = done.exchange
        changed = tuple(name for name in _TEXTS if getattr(made, name) != getattr(turn, name))
        return Replayed({}, changed, made.reply)

    async def _made_by(self) -> Mapping[str, Any]:
        return {} if self._make_up is None else await self._make_up.make_up()


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    names = (then.keys() | now.keys()) - _ASKED
    return {
        name: (then.get(name), now.get(name))
        for name in sorted(names)
        if then.get(name) != now.get(name)
    }


def _request(session: Session, turn: Turn, deadline: float) -> ReplyRequest:
    make_up = turn.make_up
    params = SamplingParams(**{**make_up["params"], "seed": turn.seed})
    if turn.finish_reason in _CUT and make_up["num_tokens"]:
        num = make_up["num_tokens"]
        params = replace(params, max_tokens=num, min_tokens=min(num, params.min_tokens))
    return ReplyRequest(
        request_id=new_token(),
        history=path_to(session.tree, turn.parent),
        user=turn.user,
        params=params,
        enabled=frozenset(make_up["plugins"]),
        max_length=make_up["max_length"],
        deadline=deadline,
        owner=session.owner,
        session_id=session.uid,
        max_completion_tokens=make_up.get("max_completion_tokens"),
        call_log=StoredAnswers(turn.calls),
    )


class StoredAnswers:
    """A CallLog of calls that are over: it knows all results, and nothing may be sent."""

    def __init__(self, calls: tuple[StoredCall, ...]) -> None:
        self._outputs = {_place(call.id): (_output(call), call.ms or 0) for call in calls}

    async def find(self, call_id: str) -> TimedOutput | None:
        return self._outputs.get(_place(call_id), (PluginOutput.no_result(), 0))

    async def claim(self, call_id: str) -> bool:
        return False

    async def record(self, call_id: str, output: TimedOutput) -> TimedOutput:
        return output


def _place(call_id: str) -> str:
    """The choice and the index in a call's id, which begins with its turn's."""
    return "-".join(call_id.split("-")[1:3])


def _output(call: StoredCall) -> PluginOutput:
    """What the plugin answered, as far as it was shown."""
    if call.state == "failed":
        return PluginOutput.no_result()
    if isinstance(call.output, str):
        return PluginOutput(True, tuple(call.output.split("\n")))
    if has_images(call):
        pictures = (StoredPicture(image["id"], image["media_type"]) for image in call.output)
        return PluginOutput(True, images=tuple(pictures))
    items = (Item(item["title"], item["url"], item["snippet"]) for item in call.output)
    return PluginOutput(True, items=tuple(items))
