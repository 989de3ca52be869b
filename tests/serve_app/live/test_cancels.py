"""Clients that cancel a live turn, more than one at a time."""

import asyncio

from serve_app.live.store import Ask
from tests.serve_app.live.ingresses import OWNER, Ingresses
from tests.support.chat_fakes import FakeModel


async def test_the_first_cancel_stands(ingresses: Ingresses) -> None:
    is_told = asyncio.Event()

    async def hang(is_reply: bool, num_tokens: int) -> None:
        if is_reply and num_tokens == 4:
            is_told.set()
            await asyncio.Event().wait()

    ingress, uid = ingresses.add(FakeModel(wait=hang)), await ingresses.session()
    started = await ingress.start(uid)
    await is_told.wait()
    ask = Ask(uid, OWNER, started.id)
    assert await ingress.store.cancel(ask, "keep") == "keep"
    last = await ingress.cancel(started, keep=False)
    assert last is not None and last.kind == "done"
    (turn,) = (await ingresses.load(uid)).turns
    assert turn.finish_reason == "cancelled"
    assert await ingress.store.cancel(ask, "drop") == "", "it runs no more"
