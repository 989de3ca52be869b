"""Clients of a site with changes, and what every error looks like."""

import re
from dataclasses import replace
from typing import Any

import httpx

from serve_app.http.app import create_http_app
from tests.support.site import Site


def client_of(site: Site, **changes: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(create_http_app(replace(site.service, **changes)))
    return httpx.AsyncClient(transport=transport, base_url="http://localhost")


def assert_error(response: httpx.Response, status: int, code: str | None) -> None:
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (status, code), response.text
    assert set(error) == {"message", "type", "param", "code"}
    assert re.fullmatch("[0-9a-f]{32}", response.headers["X-Request-Id"])
