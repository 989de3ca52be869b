"""A live turn on one ingress: its events, its readers, its end in the session."""

import asyncio

from tests.serve_app.live.ingresses import Ingresses, text_of


async def test_a_turn_is_told_and_stored(ingresses: Ingresses) -> None:
    ingress, uid = ingresses.add(), await ingresses.session()
    started = await ingress.start(uid)
    events = await ingress.read(started)
    assert [event.number for event in events] == [*range(len(events))]
    kinds = [event.kind for event in events]
    assert kinds[:2] == ["turn", "thoughts"] and kinds[-1] == "done"
    assert events[0].data == {"id": started.id, "uid": uid}
    assert text_of(events) == "turn 1"
    (turn,) = (await ingresses.load(uid)).turns
    assert (turn.id, turn.reply, turn.parent) == (started.id, "turn 1", "")
    assert events[-1].data["turn"]["reply"] == "turn 1"
    assert events[-1].data["usage"] == turn.usage


async def test_another_ingress_follows(ingresses: Ingresses) -> None:
    first, second, uid = ingresses.add(), ingresses.add(), await ingresses.session()
    started = await first.start(uid)
    here, there = await asyncio.gather(first.read(started), second.read(started))
    assert here == there
    assert await second.read(started, after=0) == there[1:]
