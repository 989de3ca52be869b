"""Replies that go on after what an earlier run has told."""

import time
from dataclasses import replace

from serve_app.chat.events import Done
from serve_app.chat.reply import create_replier
from serve_app.chat.resume import Resume
from tests.serve_app.chat.replies import CODEC, PLAIN, a_request
from tests.support.chat_fakes import FakeModel, FakePlugins


async def test_a_reply_whose_time_was_over_does_not_go_on() -> None:
    """What the earlier run held back may be told by then."""
    model = FakeModel()
    replier = create_replier(model, FakePlugins(), PLAIN)
    request = a_request()
    told = Resume("2", reply_ids=tuple(CODEC.spell(" turn")), engine_text=" turn", num_told_chars=4)
    request = replace(request, prompt=await replier.prompt(request), resume=told)
    late = replace(request, deadline=time.monotonic() - 0.1)
    (done,) = [event async for event in replier.reply(late)]
    assert isinstance(done, Done)
    assert (done.exchange.reply, done.finish_reason) == ("turn", "length")
    assert model.requests == []
    *_, done = [event async for event in replier.reply(request)]
    assert isinstance(done, Done)
    assert (done.exchange.reply, done.finish_reason) == ("turn 2", "stop")
