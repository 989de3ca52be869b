"""`/ui`: the page's files over the application, with what a browser needs to know of them."""

import hashlib
from importlib.resources import files

import httpx
import pytest

from serve_app.http.app import create_http_app
from tests.serve_app.http.clients import assert_error, client_of
from tests.support.fakes.gates import FakeGate
from tests.support.site import Site

STATIC = {
    each.name: each.read_bytes() for each in files("serve_app.page").joinpath("static").iterdir()
}
POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "connect-src": "'self'",
    "img-src": "'self'",
    "frame-ancestors": "'none'",
    "base-uri": "'none'",
    "form-action": "'none'",
}
TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
ETAG, MATCH = "ETag", "If-None-Match"


def assert_is_safe(response: httpx.Response) -> None:
    policy = response.headers["Content-Security-Policy"]
    assert dict(part.strip().split(" ", 1) for part in policy.split(";")) == POLICY
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert response.headers["Cache-Control"] == "no-cache"


async def test_the_page_and_its_files_need_no_key(site: Site) -> None:
    paths = {"/ui": "index.html"} | {f"/ui/{name}": name for name in STATIC if name != "index.html"}
    assert len(paths) > 3
    async with client_of(site, gate=FakeGate(), requires_key=True) as client:
        for path, name in paths.items():
            response = await client.get(path)
            assert (response.status_code, response.content) == (200, STATIC[name])
            kind = TYPES.get(name.rpartition(".")[2], "text/html")
            assert response.headers["Content-Type"].split(";")[0] == kind
            assert_is_safe(response)


@pytest.mark.parametrize(
    "name",
    [
        "nothing.js",
        "index.html",  # whose URLs would lead elsewhere
        "App.js",
        "%2e%2e",
        "..%2fstatic_files.py",
        "%2fetc%2fpasswd",
        "../static_files.py",
        "app.js/",
        "static/app.js",
        "app.js%00",
    ],
)
async def test_nothing_else_is_a_file_of_the_page(site: Site, name: str) -> None:
    assert_error(await site.client.get(httpx.URL(f"http://localhost/ui/{name}")), 404, None)


@pytest.mark.parametrize("path", ["/ui", "/ui/app.js"])
async def test_a_browser_that_has_a_file_is_told_so(site: Site, path: str) -> None:
    first = await site.client.get(path)
    etag = first.headers[ETAG]
    assert hashlib.sha256(first.content).hexdigest().startswith(etag.strip('"'))
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = await site.client.get(path, headers={MATCH: known})
        assert (again.status_code, again.content, again.headers[ETAG]) == (304, b"", etag)
        assert_is_safe(again)
    for other in ('"other"', etag.strip('"'), ""):
        assert (await site.client.get(path, headers={MATCH: other})).status_code == 200
    several = await site.client.get(path, headers=[(MATCH, '"other"'), (MATCH, etag)])
    assert several.status_code == 304


@pytest.mark.parametrize("path", ["/", "/ui", "/ui/", "/ui/app.js"])
async def test_a_head_is_that_of_a_get(site: Site, path: str) -> None:
    asked, told = await site.client.get(path), await site.client.head(path)
    assert told.status_code == asked.status_code
    same = ("Content-Length", "Content-Type", ETAG, "Location", "Content-Security-Policy")
    assert [told.headers.get(name) for name in same] == [asked.headers.get(name) for name in same]


@pytest.mark.parametrize("path", ["/", "/ui/"])
@pytest.mark.parametrize(
    ("prefix", "page"), [("", "/ui"), ("/moss", "/moss/ui"), ("//evil.example", "/evil.example/ui")]
)
async def test_browsers_are_led_to_the_page(site: Site, path: str, prefix: str, page: str) -> None:
    app = create_http_app(site.service)
    transport = httpx.ASGITransport(app, root_path=prefix)
    shown = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Prefix": "/evil"}
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:81") as client:
        response = await client.get(f"{prefix}{path}", headers=shown)
        assert (response.status_code, response.headers["Location"]) == (307, page)
        assert response.content == b""
        assert_is_safe(response)


async def test_the_demos_api_is_where_it_was(site: Site) -> None:
    assert (await site.post()).json()["response"].endswith("turn 1")
    refused = await site.client.put("/", json={})
    assert_error(refused, 405, None)
    assert {each.strip() for each in refused.headers["Allow"].split(",")} == {"GET", "HEAD", "POST"}


def test_all_modules_are_loaded_at_once() -> None:
    """A browser that finds them one by one waits for each."""
    static = files("serve_app.page").joinpath("static")
    index = static.joinpath("index.html").read_text("utf-8")
    modules = {each.name for each in static.iterdir() if each.name.endswith(".js")}
    assert all(f'"ui/{name}"' in index for name in modules)
