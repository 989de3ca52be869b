"""The metrics of a server: what its ingresses and its groups have counted, whoever is asked."""

from collections.abc import Callable
from typing import Protocol

from prometheus_client.core import CounterMetricFamily

from serve_app.observe.board import Board
from serve_app.observe.collectors import NothingRouted, Routed
from serve_app.observe.engine import with_usage
from serve_app.observe.publisher import PERIOD_S, Publisher
from serve_app.observe.snapshot import add_up, families_of, ordered, render
from serve_app.observe.turns import TurnMetrics
from serve_app.watch import Watch, unwatched


class Metrics(Protocol):
    """What the HTTP side and the chat need of it."""

    @property
    def watch(self) -> Watch:
        """The watch of all replies and raw completions."""
        ...

    def note_rejected(self, reason: str, count: int = 1) -> None:
        """Requests were refused with the error of code `reason`."""
        ...

    async def text(self) -> bytes:
        """All samples in Prometheus's format. Raises StoreUnavailableError."""
        ...


class NoMetrics:
    """Those of a server that counts nothing."""

    watch: Watch = staticmethod(unwatched)

    def note_rejected(self, reason: str, count: int = 1) -> None:
        pass

    async def text(self) -> bytes:
        return b""


class ServerMetrics:
    """The part of one ingress in them. `url` is the store's, `routed` what its router has
    counted."""

    def __init__(
        self,
        url: str,
        model_name: str,
        max_model_len: int,
        period_s: float = PERIOD_S,
        routed: Callable[[], Routed] = NothingRouted,
    ) -> None:
        self._model_name = model_name
        self._turns = TurnMetrics(model_name, max_model_len, routed=routed)
        self._board = Board(url)
        self._publisher = Publisher(url, "ingress", self._turns.registry.collect, period_s)
        self.watch: Watch = self._turns.watch
        self.note_rejected = self._turns.note_rejected

    def open(self) -> None:
        """Begins to publish. Needs a running event loop."""
        self._publisher.start()

    async def text(self) -> bytes:
        await self._publisher.publish()
        reading = await self._board.read()
        restarts = CounterMetricFamily(
            "moss:tp_group_restarts",
            "Tensor-parallel groups that were lost, and replaced.",
            labels=["model_name"],
        )
        restarts.add_metric([self._model_name], reading.num_restarts)
        parts = ordered(reading.snapshots, reading.live)
        return render(with_usage(add_up([*parts, families_of([restarts])])))

    async def log_key(self) -> bytes:
        """The key of the hashes in all logs of this server. Raises StoreUnavailableError."""
        return await self._board.log_key()

    async def close(self) -> None:
        await self._publisher.stop()
        await self._board.close()
