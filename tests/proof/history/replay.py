"""Makes a stored turn again, from its path and its seed alone, on a model that nobody disturbs."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from moss_tp.sampling_params import SamplingParams
from serve_app.chat.events import Done
from serve_app.chat.reply import create_replier
from serve_app.chat.request import ReplyRequest
from serve_app.demo.bundled import BUNDLED_MODEL
from serve_app.prompt.choose import build_prompts
from serve_app.prompt.exchange import Exchange
from tests.proof.digest import DigestModel, digest_tokenizer
from tests.proof.plugins import RecordedPlugins

Json = Mapping[str, Any]


async def made_again(path: Sequence[Exchange], turn: Json, make_up: Json) -> Exchange:
    """The exchange that `turn` has to be: `path` are those before it."""
    calls = {(c["name"], c["argument"]): c["state"] for c in turn["plugin_calls"]}
    prompts = build_prompts(digest_tokenizer(), BUNDLED_MODEL, "plugin")
    replier = create_replier(DigestModel(), RecordedPlugins(calls), prompts)
    request = ReplyRequest(
        request_id="again",
        history=path,
        user=turn["user"],
        params=SamplingParams(**{**make_up["params"], "seed": turn["seed"], "stop": ()}),
        enabled=frozenset(make_up["plugins"]),
        max_length=make_up["max_length"],
        deadline=time.monotonic() + 60,
    )
    async for event in replier.reply(request):
        if isinstance(event, Done):
            return event.exchange
    raise AssertionError("a reply has an end")


def is_same(turn: Json, made: Exchange) -> bool:
    """Whether the turn is what was made again; one that was cut is its beginning."""
    if turn["thoughts"] != made.thoughts:
        return False
    is_whole = turn["finish_reason"] == "stop"
    reply: str = turn["reply"]
    return reply == made.reply if is_whole else made.reply.startswith(reply.rstrip())
