"""What a running server says about itself, put together: health, counters and metrics.

Anybody may ask whether it is ready and which groups serve; counters are an administrator's.
"""

import re
from collections.abc import Mapping
from typing import Any

import httpx

from moss_tp.errors import MossError
from serve_app.client.connect import http_client

TIMEOUT_S = 10.0
_REFUSED = (401, 403)
_TURNS = re.compile(r"^moss:sessions_active\{[^}]*\} (\S+)$", re.MULTILINE)


class StateError(MossError):
    """The server does not answer, or is another program."""


def server_state(url: str, key: str | None) -> dict[str, Any]:
    """`ready`, `model`, `version` and `groups`; and, unless the `key` does not open them (then
    they are None), `replicas` with their counters, `running_turns`, and `store`: whether it
    answers.

    Raises StateError and ProxyError.
    """
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with http_client(url, TIMEOUT_S) as client:
            ask = _Asked(client, url.rstrip("/"), headers)
            about, health = ask("/version").json(), ask("/health").json()
            state = {
                "url": url,
                "ready": ask("/readyz").status_code == 200,
                "model": about["model"],
                "version": about["version"],
                "groups": health["groups"],
            }
            return {**state, **_counters(ask("/stats"), ask("/metrics"))}
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, LookupError, TypeError) as error:
        reason = str(error) or type(error).__name__
        raise StateError(f"no MOSS server answers at {url}: {reason}") from error


class _Asked:
    def __init__(self, client: httpx.Client, url: str, headers: Mapping[str, str]) -> None:
        self._client, self._url, self._headers = client, url, headers

    def __call__(self, path: str) -> httpx.Response:
        return self._client.get(f"{self._url}{path}", headers=self._headers, timeout=TIMEOUT_S)


def _counters(stats: httpx.Response, metrics: httpx.Response) -> dict[str, Any]:
    if stats.status_code in _REFUSED:
        return {"replicas": None, "running_turns": None, "store": None}
    replicas = stats.json()["replicas"] if stats.status_code == 200 else []
    has_store = metrics.status_code == 200
    turns = sum(float(count) for count in _TURNS.findall(metrics.text)) if has_store else None
    return {
        "replicas": replicas,
        "running_turns": None if turns is None else int(turns),
        "store": has_store,
    }
