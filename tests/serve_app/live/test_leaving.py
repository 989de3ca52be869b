"""Ingresses that stop in order: their turns are handed over, or end within the time to drain."""

import asyncio
from itertools import pairwise

from serve_app.http.drain import Drain
from tests.serve_app.live.ingresses import Ingresses, text_of
from tests.serve_app.live.test_fencing import REPLY, slow_model


async def test_turns_are_handed_to_an_ingress_that_stays(ingresses: Ingresses) -> None:
    drain = Drain()
    first, second = ingresses.add(slow_model(0.05), stop=drain), ingresses.add(slow_model(0))
    started = await first.start(await ingresses.session())
    reading = asyncio.create_task(first.read(started))
    while len(first.model.requests) < 2:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)
    began = asyncio.get_running_loop().time()
    assert await drain.finish(10) == 0
    assert asyncio.get_running_loop().time() - began < 2, "it did not wait for the end"
    assert first.model.num_running == 0
    events = await reading
    assert text_of(events) == REPLY.strip().removesuffix("<eom>")
    assert second.model.requests[0].output_ids, "it went on"
    assert await second.read(started) == events


async def test_handing_over_is_no_failed_try(ingresses: Ingresses) -> None:
    drains = [Drain() for _ in range(6)]
    first, uid = ingresses.add(slow_model(0.05), stop=drains[0]), await ingresses.session()
    started = await first.start(uid)
    for drain, following in pairwise(drains):
        next_ingress = ingresses.add(slow_model(0.05), stop=following)
        assert await drain.finish(10) == 0
        while not next_ingress.model.requests:
            await asyncio.sleep(0.01)
    events = await next_ingress.read(started)
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
    while not only.model.requests:
        await asyncio.sleep(0.01)
    assert await drain.finish(0.5) == 1
    assert only.model.num_running == 0
    await only.close()
    restarted = ingresses.add(slow_model(0))
    events = await restarted.read(started)
    assert text_of(events) == REPLY.strip().removesuffix("<eom>")
