"""Ingresses that stop in order: their turns are handed over, or end within the time to drain."""

import asyncio
from itertools import pairwise

from serve_app.http.drain import Drain
from tests.serve_app.live.ingresses import PERIOD_S, Ingresses, begun, stored, text_of
from tests.serve_app.live.test_fencing import REPLY, hanging_model, slow_model


async def test_turns_are_handed_to_an_ingress_that_stays(ingresses: Ingresses) -> None:
    drain = Drain()
    first, second = ingresses.add(hanging_model(5), stop=drain), ingresses.add(slow_model(0))
    await second.is_known()
    started = await first.start(await ingresses.session())
    reading = asyncio.create_task(first.read(started))
    await stored(started, 5)
    assert await drain.finish(10) == 0, "it did not wait for an end that never comes"
    assert first.model.num_running == 0
    events = await reading
    assert text_of(events) == REPLY.strip().removesuffix("<eom>")
    assert second.model.requests[0].output_ids, "it went on"
    assert await second.read(started) == events


async def test_handing_over_is_no_failed_try(ingresses: Ingresses) -> None:
    drains = [Drain() for _ in range(6)]
    ingress, uid = ingresses.add(hanging_model(0), stop=drains[0]), await ingresses.session()
    started = await ingress.start(uid)
    for number, (drain, following) in enumerate(pairwise(drains), 1):
        model = slow_model(0) if following is drains[-1] else hanging_model(number)
        ingress = ingresses.add(model, stop=following)
        await ingress.is_known()
        assert await drain.finish(10) == 0
        await begun(ingress)
    events = await ingress.read(started)
    assert text_of(events) == REPLY.strip().removesuffix("<eom>")


async def test_without_another_ingress_turns_may_end(ingresses: Ingresses) -> None:
    await asyncio.sleep(ingresses.settings.here_s)  # the ingresses of other tests are forgotten
    drain = Drain()
    only, uid = ingresses.add(slow_model(), stop=drain), await ingresses.session()
    started = await only.start(uid)
    assert await drain.finish(10) == 0
    assert (await only.read(started))[-1].kind == "done"
    assert len((await ingresses.load(uid)).tree) == 1


async def test_what_has_not_ended_in_time_is_left_to_the_next_start(ingresses: Ingresses) -> None:
    await asyncio.sleep(ingresses.settings.here_s)  # the ingresses of other tests are forgotten
    drain = Drain()
    only, uid = ingresses.add(slow_model(0.3), stop=drain), await ingresses.session()
    started = await only.start(uid)
    await begun(only)
    assert await drain.finish(0.5) == 1
    assert only.model.num_running == 0
    await only.close()
    restarted = ingresses.add(slow_model(0))
    events = await restarted.read(started)
    assert text_of(events) == REPLY.strip().removesuffix("<eom>")


async def test_what_was_handed_over_is_not_taken_up_again(ingresses: Ingresses) -> None:
    await asyncio.sleep(ingresses.settings.here_s)  # the ingresses of other tests are forgotten
    drain = Drain()
    only = ingresses.add(slow_model(0.3), stop=drain)
    await only.start(await ingresses.session())
    while not only.model.requests:
        await asyncio.sleep(0.01)
    assert await drain.finish(0.3) == 1
    num_requests = len(only.model.requests)
    await asyncio.sleep(ingresses.settings.hold_s + 3 * PERIOD_S)
    assert only.model.num_running == 0
    assert len(only.model.requests) == num_requests
