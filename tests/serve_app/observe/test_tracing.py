"""Traces from the client through ingress, engine and plugin, at a real receiver."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator, Coroutine, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from cluster.channel.listener import Listener
from moss_tp.engine.outputs import TokenDelta
from moss_tp.engine.request import EngineRequest
from plugins_svc.deployment import PluginReplica
from plugins_svc.sdk.output import PluginOutput
from serve_app.chat.calling.plugin_client import PluginsByName
from serve_app.chat.reply import create_replier
from serve_app.deployments.model import MossServer
from serve_app.deployments.replies import Replies
from serve_app.observe import tracing
from serve_app.observe.plugins import PluginObserver
from serve_app.observe.tracing import flush_spans, span
from serve_app.prompt.builder import PromptBuilder
from serve_app.remote.model import RemoteModel
from serve_app.remote.plugins import remote_plugins
from tests.serve_app.observe.otlp import Receiver, receiving
from tests.support.chat_fakes import CharCodec, FakeModel, think_of
from tests.support.site import Site

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with receiving() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.endpoint)
        tracing._tracer.cache_clear()
        tracing._provider.cache_clear()
        yield running
        tracing._provider().shutdown()
        tracing._tracer.cache_clear()
        tracing._provider.cache_clear()


@dataclass
class ReplicaHandle:
    """The handle of an in-process replica, as the ingress has it."""

    replica: Any
    calls: list[tuple[object, ...]] = field(default_factory=list)

    @property
    def run(self) -> "ReplicaHandle":
        return self

    def remote(self, *args: object) -> Any:
        self.calls.append(args)
        return _Response(self.replica.run(*args))


@dataclass
class _Response:
    """Of a call that its replica has taken."""

    answer: Coroutine[Any, Any, Any]

    async def _fetch_future_result_async(self) -> None: ...

    def __await__(self) -> Generator[Any, None, Any]:
        return self.answer.__await__()


class ReplicaModel:
    """A ChatModel over the `generate` of a real replica, whose engine is a fake."""

    def __init__(self, model: FakeModel) -> None:
        self._model = model

    async def generate(self, request: EngineRequest, session_id: str) -> AsyncGenerator[TokenDelta]:
        server = object.__new__(MossServer)
        server.__dict__.update(_engine=_Engine(self._model), _replies=Replies({}, lambda: True))
        handle: Any = _ModelHandle(server)
        model = RemoteModel(handle, Listener())
        async for delta in model.generate(request, session_id):
            yield delta
        await model.close()


class _ModelHandle:
    def __init__(self, server: MossServer) -> None:
        self._server = server
        self.generate = self

    def remote(self, *request: Any, **options: Any) -> "asyncio.Task[None]":
        return asyncio.create_task(self._server.generate(*request, **options))


@dataclass
class _Engine:
    model: FakeModel

    def generate(self, request: EngineRequest) -> Any:
        return self.model.generate(request, "")

    def close(self) -> None:
        pass


def traced_plugins() -> PluginsByName:
    replica = PluginReplica("calculator", {}, PluginObserver("text", None))
    handle: Any = ReplicaHandle(replica)
    return remote_plugins({"calculator": handle})


def use_replicas(site: Site) -> None:
    """The site's replier asks real replicas, of a fake engine and of the calculator."""
    prompts = PromptBuilder(CharCodec(), "Be brief.\n")
    made = create_replier(ReplicaModel(site.model), traced_plugins(), prompts)
    site.service.replier.__dict__.update(made.__dict__)


async def test_ingress_engine_and_plugin_are_one_trace(site: Site, receiver: Receiver) -> None:
    use_replicas(site)
    site.model.think = think_of('Calculate("1+1")')
    body = {"prompt": "canary", "plugins": ["calculator"]}
    response = await site.client.post("/", json=body, headers={"traceparent": TRACEPARENT})
    assert response.status_code == 200
    flush_spans(5)
    by_name: dict[str, list[Any]] = {}
    for each in receiver.spans:
        by_name.setdefault(each.name, []).append(each)
    assert {name: len(spans) for name, spans in by_name.items()} == {
        "ingress": 1,
        "engine": 2,
        "plugin": 1,
    }
    assert {each.trace for each in receiver.spans} == {TRACE}
    (ingress,) = by_name["ingress"]
    assert ingress.parent == PARENT
    assert "/" in ingress.attributes["http.route"]
    assert "200" in ingress.attributes["http.response.status_code"]
    assert {each.parent for each in by_name["engine"] + by_name["plugin"]} == {ingress.id}
    assert not any(b"canary" in body for body in receiver.bodies)


async def test_a_request_without_a_trace_begins_one(site: Site, receiver: Receiver) -> None:
    for header in ({}, {"traceparent": "nonsense"}):
        await site.client.get("/version", headers=header)
    flush_spans(5)
    first, second = receiver.spans
    assert (first.parent, second.parent) == ("", "")
    assert first.trace != second.trace


def test_an_error_is_told_by_its_type(receiver: Receiver) -> None:
    with pytest.raises(ValueError), span("engine", TRACEPARENT):
        raise ValueError("canary")
    flush_spans(5)
    assert [each.is_error for each in receiver.spans] == [True]
    assert not any(b"canary" in body for body in receiver.bodies)


async def test_what_is_not_traced_is_not_told_of_traces(site: Site) -> None:
    handle = ReplicaHandle(_Plugin())
    plugins: Any = {"calculator": handle}
    site.service.replier.__dict__.update(
        create_replier(
            site.model, remote_plugins(plugins), PromptBuilder(CharCodec(), "Be brief.\n")
        ).__dict__
    )
    site.model.think = think_of('Calculate("1+1")')
    await site.post(plugins=["calculator"])
    assert handle.calls == [("1+1",)]
    assert {request.traceparent for request in site.model.requests} == {""}


class _Plugin:
    async def run(self, *args: object) -> PluginOutput:
        return PluginOutput(True, ("2",))


def test_without_an_endpoint_nothing_is_imported() -> None:
    code = (
        "import sys\n"
        "from serve_app.observe.tracing import span\n"
        "with span('x', '') as own: assert own == ''\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
