"""An ingress replica that Serve stops hands its turns over and refuses none; a real Serve is in
test_real_serve and in the proof of rolling updates."""

import asyncio

import pytest

from serve_app.deployments import replica_end
from serve_app.deployments.replica_end import drain_when_stopped, is_being_stopped
from serve_app.errors import DrainingError
from serve_app.http.drain import Drain


async def test_the_drain_begins_when_serve_stops_the_replica(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replica_end, "POLL_S", 0.01)
    drain, is_stopped = Drain(), False
    watch = asyncio.create_task(drain_when_stopped(drain, 1.0, lambda: is_stopped))
    with drain.turn():
        await asyncio.sleep(0.1)
        assert not drain.is_draining
        is_stopped = True
        async with asyncio.timeout(10):
            while not drain.is_draining:
                await asyncio.sleep(0.01)
            with drain.turn():
                """One that was on its way is taken."""
            over = asyncio.create_task(drain.wait_over())
            await asyncio.sleep(0.2)
            assert not over.done(), "the turn has a second"
            await over
    async with asyncio.timeout(10):
        await watch
    with pytest.raises(DrainingError), drain.turn():
        pass


def test_a_process_without_a_replica_is_not_being_stopped() -> None:
    assert not is_being_stopped()
