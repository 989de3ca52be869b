"""The HTTP deployment on a fake model handle and a real store: its routes and its refusals."""

from collections.abc import AsyncIterator, Generator
from typing import Any, Self, cast

import httpx
import pytest
from ray.exceptions import ActorDiedError
from ray.serve.handle import DeploymentHandle
from redis.asyncio import Redis

from moss_tp.errors import ConfigError
from serve_app.api_secret import digest_of
from serve_app.demo.bundled import BUNDLED_MODEL
from serve_app.deployments.ingress import Ingress
from serve_app.groups import GroupState
from serve_app.settings import ServeSettings

OWN_NAME = BUNDLED_MODEL.name


class FakeHandle:
    """The handle of a model whose every call returns `answer`, or raises it."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def broadcast(self, method: str) -> Self:
        self._method = method
        return self

    async def _fetch_replica_results_async(self) -> list[Self]:
        return [self]

    async def get_async(self) -> object:
        answer = await self
        return GroupState("serving") if self._method == "state" else answer

    def __getattr__(self, method: str) -> Self:
        return self

    def remote(self) -> Self:
        return self

    def __await__(self) -> Generator[None, None, object]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer
        yield


# The class as written, without the wrapper in which Serve runs it.
Plain: Any = next(kind for kind in Ingress.__mro__ if "_replier" in kind.__dict__)


class OwnIngress(Plain):  # type: ignore[misc]
    def __del__(self) -> None:
        """Not awaited here; Serve awaits the one of a replica."""


@pytest.fixture(autouse=True)
def _stay_as_nice(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is no replica of its own."""
    monkeypatch.setattr("serve_app.deployments.ingress.yield_to_the_model", lambda: None)


def make(store_url: str, handle: FakeHandle, **fields: object) -> OwnIngress:
    settings = ServeSettings.model_validate(
        {"model": str(BUNDLED_MODEL), "store": store_url, **fields}
    )
    return OwnIngress(settings, cast(DeploymentHandle[Any], handle), {"calculator": handle})


@pytest.fixture
async def handle() -> FakeHandle:
    return FakeHandle({"steps": 7, "replica": "one"})


@pytest.fixture
async def client(store_url: str, handle: FakeHandle) -> AsyncIterator[httpx.AsyncClient]:
    ingress = make(store_url, handle)
    transport = httpx.ASGITransport(await ingress.__serve_build_asgi_app__())
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as made:
        yield made
    await Plain.__del__(ingress)


async def test_stats_are_those_of_the_replicas(client: httpx.AsyncClient) -> None:
    response = await client.get("/stats")
    assert (response.status_code, response.json()) == (
        200,
        {"steps": 7, "replicas": [{"steps": 7, "replica": "one"}]},
    )


async def test_a_model_without_replicas_is_seen_everywhere(
    client: httpx.AsyncClient, handle: FakeHandle
) -> None:
    assert [(await client.get(path)).status_code for path in ("/health", "/livez")] == [200, 200]
    handle.answer = ActorDiedError()
    response = await client.get("/stats")
    assert (response.status_code, response.headers["Retry-After"]) == (500, "5")
    assert response.json()["error"]["code"] == "engine_error"
    statuses = [(await client.get(path)).status_code for path in ("/health", "/readyz", "/livez")]
    assert statuses == [503, 503, 200], "the ingress itself lives"


async def test_the_chat_endpoint_is_below_the_same_root(client: httpx.AsyncClient) -> None:
    assert (await client.get("/version")).json()["model"] == BUNDLED_MODEL.name
    refused = await client.post("/", json={"prompt": "hi", "plugins": ["web_search"]})
    assert refused.status_code == 400, "only the calculator is deployed"
    assert "web_search" in refused.json()["error"]["message"]
    too_long = await client.post("/", json={"prompt": "长" * 2000})
    assert too_long.json()["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize(
    ("name", "value", "back"),
    [("maxmemory-policy", "allkeys-lru", "noeviction"), ("appendonly", "no", "yes")],
)
async def test_an_ingress_does_not_start_on_a_store_that_may_lose_chats(
    store_url: str, name: str, value: str, back: str
) -> None:
    ingress = make(store_url, FakeHandle(None))
    async with Redis.from_url(store_url) as raw:
        await raw.config_set(name, value)
        try:
            with pytest.raises(ConfigError, match=f"{back}.*--allow-volatile-store"):
                await ingress.__serve_build_asgi_app__()
        finally:
            await raw.config_set(name, back)
    await Plain.__del__(ingress)


async def test_a_server_with_keys_asks_for_them(store_url: str, handle: FakeHandle) -> None:
    fields = {"api_key_sha256": digest_of("correct-horse"), "served_model_names": ("moss",)}
    ingress = make(store_url, handle, **fields)
    transport = httpx.ASGITransport(await ingress.__serve_build_asgi_app__())
    async with httpx.AsyncClient(transport=transport, base_url="http://moss.example") as client:
        assert (await client.get("/stats")).status_code == 401
        headers = {"Authorization": "Bearer correct-horse"}
        assert (await client.get("/stats", headers=headers)).status_code == 200
        assert (await client.get("/livez")).status_code == 200
    await Plain.__del__(ingress)


async def test_a_served_model_name_leads_to_the_models_own(
    store_url: str, handle: FakeHandle
) -> None:
    ingress = make(store_url, handle, served_model_names=("gpt-4o", "moss"))
    transport = httpx.ASGITransport(await ingress.__serve_build_asgi_app__())
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        models = (await client.get("/v1/models")).json()["data"]
    assert [(m["id"], m["root"]) for m in models] == [("gpt-4o", OWN_NAME), ("moss", OWN_NAME)]
    await Plain.__del__(ingress)


async def test_a_server_without_keys_answers_to_its_own_names_only(
    store_url: str, handle: FakeHandle
) -> None:
    ingress = make(store_url, handle, hosts=("moss.example",), no_auth=True)
    transport = httpx.ASGITransport(await ingress.__serve_build_asgi_app__())
    for host, status in (("moss.example", 200), ("localhost", 200), ("evil.example", 403)):
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
            assert (await client.get("/stats")).status_code == status
    await Plain.__del__(ingress)
