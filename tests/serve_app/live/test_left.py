"""An ingress that is alone hands its turns over to nobody, and does not take them back."""

import asyncio

from serve_app.http.drain import Drain
from tests.serve_app.live.ingresses import PERIOD_S, Ingresses
from tests.serve_app.live.test_fencing import slow_model


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
