"""A real uvicorn on loopback, for tests of real connections such as a client that disconnects."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from starlette.types import ASGIApp


class _QuietServer(uvicorn.Server):
    """Installs no signal handlers; pytest has its own."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class MortalServer:
    """A server that dies as a killed process does: `cut`, then `end`."""

    async def start(self, app: ASGIApp, port: int = 0) -> int:
        """Serves `app` in this event loop; the port, which is a free one for 0."""
        config = uvicorn.Config(
            app, "127.0.0.1", port, ws="none", lifespan="off", log_level="critical"
        )
        self._server = _QuietServer(config)
        self._task = asyncio.create_task(self._server.serve())
        while not self._server.started:
            assert not self._task.done()
            await asyncio.sleep(0.01)
        return int(self._server.servers[0].sockets[0].getsockname()[1])

    async def cut(self) -> None:
        """Connections break, and there are no new ones. What serves them goes on."""
        for listening in self._server.servers:
            listening.close()
        for _ in range(3):  # a connection may have been accepted just now
            for connection in [*self._server.server_state.connections]:
                connection.transport.abort()
            await asyncio.sleep(0)

    async def end(self) -> None:
        """What serves requests ends where it is."""
        tasks = self._server.server_state.tasks
        for task in [*tasks]:
            task.cancel()
        self._server.should_exit = self._server.force_exit = True
        await self._task
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[str]:
    """Serves `app` in this event loop for the block; yields its base URL."""
    config = uvicorn.Config(app, "127.0.0.1", 0, ws="none", lifespan="off", log_level="warning")
    server = _QuietServer(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task
