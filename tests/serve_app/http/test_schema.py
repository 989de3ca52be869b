"""The server does what its description says: schemathesis asks every operation, in every way.

All of its checks run on answers of the application over a model double and a real store: valid
input is taken, invalid input refused, only described statuses, forms and headers come back, and
never a 5xx. `make chaos` asks ten times as often.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import FailureGroup
from schemathesis.python.asgi import shutdown_lifespans
from schemathesis.schemas import BaseSchema
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from serve_app.access.principal import ANONYMOUS
from serve_app.http.app import ENDPOINTS, create_http_app
from serve_app.http.openapi import describe
from serve_app.http.origin import OriginPolicy
from serve_app.sessions.redis import RedisSessionStore
from tests.proof.figures import note
from tests.support.fakes.gates import ADMIN, FakeGate
from tests.support.fakes.pictures import PNG
from tests.support.site import make_site

CONFIG = SchemathesisConfig.from_dict(
    {
        "checks": {
            # No schema tells that a prompt is too long, a session not there, a deadline too close.
            "positive_data_acceptance": {
                "expected-statuses": [
                    *("2xx", "304", "307"),
                    *("400", "401", "403", "404", "408", "409", "422"),
                ]
            },
            "negative_data_rejection": {"expected-statuses": ["4xx"]},
        }
    }
)
AT_LENGTH = int(os.environ.get("PROOF_CASES", "500"))
SETTINGS = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


class LazyApp:
    """Makes the application in the event loop that will run it; its connections belong to one."""

    def __init__(self, **changes: Any) -> None:
        self._changes = changes
        self._app = Starlette()
        self.store_url = ""
        self.image_id = ""
        self.known: dict[str, str] = {}  # parts of paths that lead to something
        self.num_cases = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._app(scope, receive, send)
            return
        assert (await receive())["type"] == "lifespan.startup"
        store = RedisSessionStore(self.store_url)
        own = OriginPolicy(hosts=frozenset({"testserver"}))
        site = make_site(store)
        self._app = create_http_app(replace(site.service, origins=own, **self._changes))
        self.known = await self._begin_chat()
        owner = "root" if self._changes else ANONYMOUS.owner
        self.image_id = await site.images.put(owner, "", *PNG)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await site.close()
        await store.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _begin_chat(self) -> dict[str, str]:
        transport = httpx.ASGITransport(self._app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://testserver", headers={"apikey": ADMIN}
        ) as client:
            uid: str = (await client.post("/", json={"prompt": "hi"})).json()["uid"]
            session = (await client.get(f"/v1/sessions/{uid}")).json()
        return {"uid": uid, "id": session["turns"][0]["id"]}

    def ask(self, case: schemathesis.Case[Any]) -> None:
        """Some cases of an operation are about something that is there."""
        self.num_cases += 1
        parts = case.path_parameters or {}
        ids = {"/v1/models": "moss-nano", "/v1/images": self.image_id}
        known = next(({"id": ids[at]} for at in ids if case.path.startswith(at)), self.known)
        if case.method != "DELETE" and len("".join(map(str, parts.values()))) % 2:
            parts.update({name: known[name] for name in parts if known.get(name)})
        case.call_and_validate()


def described(app: LazyApp, requires_key: bool) -> BaseSchema:
    api = schemathesis.openapi.from_dict(describe(ENDPOINTS, requires_key), config=CONFIG)
    api.app = app
    return api


OPEN, LOCKED = LazyApp(), LazyApp(gate=FakeGate(), requires_key=True)
open_api, locked_api = described(OPEN, False), described(LOCKED, True)


@pytest.fixture(scope="module", autouse=True)
def stores(store_url: str) -> Iterator[None]:
    OPEN.store_url = LOCKED.store_url = store_url
    yield
    shutdown_lifespans()


@locked_api.auth()
class KeyOfAnAdministrator:
    """Without it, and with another one, schemathesis expects refusals."""

    def get(self, case: schemathesis.Case[Any], context: object) -> str:
        return ADMIN

    def set(self, case: schemathesis.Case[Any], key: str, context: object) -> None:
        case.headers["Authorization"] = f"Bearer {key}"


@open_api.parametrize()
@settings(SETTINGS, max_examples=50)
def test_every_operation_does_what_is_described(case: schemathesis.Case[Any]) -> None:
    OPEN.ask(case)


@locked_api.parametrize()
@settings(SETTINGS, max_examples=5)
def test_every_operation_asks_for_a_key_as_described(case: schemathesis.Case[Any]) -> None:
    LOCKED.ask(case)


def test_what_is_not_described_is_noticed() -> None:
    api = describe(ENDPOINTS, requires_key=False)
    responses = api["paths"]["/v1/models"]["get"]["responses"]
    responses["201"] = responses.pop("200")
    lie = schemathesis.openapi.from_dict(api, config=CONFIG)
    lie.app = OPEN
    case = lie["/v1/models"]["GET"].Case()
    with pytest.raises(FailureGroup, match="Received: 200"):
        case.call_and_validate()


@pytest.fixture(scope="module")
def counted(request: pytest.FixtureRequest) -> Iterator[None]:
    """Around all operations: notes how often they were asked."""
    before, OPEN.num_cases = request.session.testsfailed, 0
    yield
    num_failed = request.session.testsfailed - before
    text = f"{OPEN.num_cases} cases, {num_failed} operations failed"
    note("schema", text, num_failed == 0)


@pytest.mark.chaos
@pytest.mark.timeout(3600)
@open_api.parametrize()
@settings(SETTINGS, max_examples=AT_LENGTH)
def test_every_operation_does_it_at_length(case: schemathesis.Case[Any], counted: None) -> None:
    OPEN.ask(case)


@pytest.mark.chaos
@pytest.mark.timeout(3600)
@locked_api.parametrize()
@settings(SETTINGS, max_examples=500)
def test_every_operation_asks_for_a_key_at_length(case: schemathesis.Case[Any]) -> None:
    LOCKED.ask(case)
