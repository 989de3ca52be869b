"""Who comes in: keys, origins, hosts, bounds of headers; on every route of the table."""

import re
from typing import Any

import pytest

from serve_app.access.cookies import COOKIE
from serve_app.errors import RateLimitError
from serve_app.http.app import ENDPOINTS
from serve_app.http.endpoint import Endpoint
from serve_app.http.origin import OriginPolicy
from tests.serve_app.http.clients import assert_error, client_of
from tests.support.fakes.gates import ADMIN, ANN, FakeGate
from tests.support.site import Site, events_of

FOREIGN: list[dict[str, str]] = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost.evil.example"},
    {"Origin": "http://localhost:3000"},  # another port is another origin
    {"Origin": "https://localhost:80"},
    {"Origin": "ftp://localhost"},
    {"Origin": "localhost"},
    {"Origin": "http://[::1"},
    {"Origin": "http://user@localhost"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"},
]
NAMES: list[tuple[str, bool]] = [
    ("localhost", True),
    ("localhost:19324", True),
    ("LOCALHOST", True),
    ("127.0.0.1:80", True),
    ("127.9.8.7", True),
    ("[::1]:19324", True),
    ("evil.example", False),
    ("localhost.evil.example", False),
    ("127.0.0.1.evil.example", False),
    ("10.0.0.5", False),
    ("0.0.0.0", False),
    ("", False),
    ("[::1", False),
    ("user@localhost", False),
    ("localhost/x", False),
    ("2130706433", False),
]


LOGIN = "/v1/login"


def path_of(endpoint: Endpoint) -> str:
    return re.sub(r"\{.*?\}", "f" * 32, endpoint.path)


every_endpoint = pytest.mark.parametrize(
    "endpoint", ENDPOINTS, ids=lambda endpoint: f"{endpoint.method} {endpoint.path}"
)


@every_endpoint
async def test_no_route_opens_without_a_key(site: Site, endpoint: Endpoint) -> None:
    wrong: list[dict[str, str]] = [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {ANN}"},
        {"apikey": "wrong"},
        {"Cookie": f"{COOKIE}=cookie-of:wrong"},
    ]
    async with client_of(site, gate=FakeGate(), requires_key=True) as client:
        for headers in wrong:
            response = await client.request(endpoint.method, path_of(endpoint), headers=headers)
            if endpoint.path == LOGIN:  # it has none in its body either
                assert_error(response, 401, "invalid_api_key")
            elif endpoint.access == "public":
                assert response.status_code not in (401, 403)
            else:
                assert_error(response, 401, "invalid_api_key")
                assert response.headers["WWW-Authenticate"] == "Bearer"
    assert site.model.prompts == []


@every_endpoint
async def test_every_route_opens_with_a_key(site: Site, endpoint: Endpoint) -> None:
    """The control of the test above."""
    shown: list[dict[str, str]] = [
        {"Authorization": f"Bearer {ANN}"},
        {"authorization": f"bearer  {ANN}"},
        {"apikey": ANN},
        {"Cookie": f"{COOKIE}=cookie-of:{ANN}"},
    ]
    async with client_of(site, gate=FakeGate(), requires_key=True) as client:
        for headers in shown:
            key = {"key": ANN} if endpoint.path == LOGIN else None
            response = await client.request(
                endpoint.method, path_of(endpoint), headers=headers, json=key
            )
            if endpoint.access == "admin":
                assert_error(response, 403, None)
                assert response.json()["error"]["type"] == "permission_error"
            else:
                assert response.status_code not in (401, 403)


async def test_an_administrator_reads_the_counters(site: Site) -> None:
    async with client_of(site, gate=FakeGate()) as client:
        response = await client.get("/stats", headers={"apikey": ADMIN})
        assert (response.status_code, response.json()["steps"]) == (200, 7)


@every_endpoint
async def test_no_route_opens_for_a_page_of_another_site(site: Site, endpoint: Endpoint) -> None:
    for headers in FOREIGN:
        response = await site.client.request(endpoint.method, path_of(endpoint), headers=headers)
        assert_error(response, 403, "foreign_origin")
    for origin in ({}, {"Origin": "http://localhost"}, {"Origin": "https://localhost:443"}):
        for fetched in ({}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}):
            headers = {**origin, **fetched}
            own = await site.client.request(endpoint.method, path_of(endpoint), headers=headers)
            assert own.status_code != 403


@every_endpoint
async def test_no_route_opens_under_another_name(site: Site, endpoint: Endpoint) -> None:
    """A rebinding page calls this server by a name of its own, so its browser sees one origin."""
    for name, is_own in NAMES:
        headers = {"Host": name}
        response = await site.client.request(endpoint.method, path_of(endpoint), headers=headers)
        if is_own:
            assert response.status_code != 403, name
        else:
            assert_error(response, 403, "foreign_origin")


@pytest.mark.parametrize("hosts", [frozenset[str](), None])
@pytest.mark.parametrize(
    ("name", "own", "other"),
    [
        ("Host", "localhost", "evil.example"),
        ("Origin", "http://localhost", "https://evil.example"),
        ("Sec-Fetch-Site", "same-origin", "cross-site"),
    ],
)
async def test_two_of_a_header_are_refused_whichever_comes_first(
    site: Site, name: str, own: str, other: str, hosts: frozenset[str] | None
) -> None:
    async with client_of(site, origins=OriginPolicy(hosts=hosts)) as client:
        assert (await client.get("/livez", headers={name: own})).status_code == 200
        for pair in ((own, other), (other, own), (own, own)):
            response = await client.get("/livez", headers=[(name, value) for value in pair])
            assert_error(response, 403, "foreign_origin")


async def test_a_server_with_keys_may_have_any_name(site: Site) -> None:
    async with client_of(site, origins=OriginPolicy(hosts=None)) as client:
        for name, _ in NAMES:
            assert (await client.get("/livez", headers={"Host": name})).status_code == 200
        headers = {"Host": "moss.example:81", "Origin": "https://moss.example"}
        assert (await client.get("/livez", headers=headers)).status_code == 403
        headers = {"Host": "moss.example", "Origin": "https://moss.example"}
        assert (await client.get("/livez", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("hosts", "name", "is_own"),
    [
        ({"moss.lan"}, "moss.lan:8080", True),
        ({"moss.lan"}, "10.0.0.5", False),
        ({"0.0.0.0"}, "10.0.0.5:8080", True),
        ({"::"}, "[fd00::5]", True),
        ({"0.0.0.0"}, "evil.example", False),
        ({"10.0.0.5"}, "10.0.0.5", True),
        ({"10.0.0.5"}, "10.0.0.6", False),
    ],
)
async def test_a_server_without_keys_has_the_names_that_it_was_given(
    site: Site, hosts: set[str], name: str, is_own: bool
) -> None:
    async with client_of(site, origins=OriginPolicy(hosts=frozenset(hosts))) as client:
        response = await client.get("/livez", headers={"Host": name})
        assert response.status_code == (200 if is_own else 403)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_turn_runs_within_an_admission(site: Site, stream: bool) -> None:
    gate = FakeGate()
    seen = []

    async def look(is_reply: bool, num_tokens: int) -> None:
        seen.append(gate.num_running)

    site.model.wait = look
    async with client_of(site, gate=gate) as client:
        body = {"prompt": "hi", "stream": stream}
        response = await client.post("/", json=body, headers={"apikey": ANN})
        answer = events_of(response)[-1] if stream else response.json()
        assert answer["response"].endswith("turn 1")
        ((principal, admission),) = gate.admissions
        assert principal.owner == "ann" and set(seen) == {1} and gate.num_running == 0
        assert admission.num_tokens > len(site.model.prompt_ids[0]), "prompt and reply"
        gate.refusal = RateLimitError("too many requests", 2.5)
        refused = await client.post("/", json=body, headers={"apikey": ANN})
        assert_error(refused, 429, "rate_limit_exceeded")
        assert refused.headers["Retry-After"] == "3"


async def test_a_uid_is_its_owners(site: Site) -> None:
    async with client_of(site, gate=FakeGate()) as client:

        async def post(key: str, uid: str | None) -> dict[str, Any]:
            body = {"prompt": "hi", "uid": uid}
            response = await client.post("/", json=body, headers={"apikey": key})
            answer: dict[str, Any] = response.json()
            return answer

        uid = (await post(ANN, None))["uid"]
        assert (await post(ADMIN, uid))["uid"] != uid
        assert len((await post(ANN, uid))["history"]) == 2
