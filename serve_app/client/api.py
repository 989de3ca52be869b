"""Requests of a server's HTTP API, blocking, with failures told apart: refused, or lost on the way.

It does not know what chats are.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from moss_tp.errors import MossError
from serve_app.client.connect import http_client
from serve_app.client.events import error_code, error_message, parse_event
from serve_app.client.sse import EventStreamReader, ServerSentEvent

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 30.0
# A stream is never silent for as long: the server sends a comment every few seconds.
SILENCE_S = 60.0


class ChatError(MossError):
    """The server is unreachable, refused the request or failed; the message says which."""


class RefusedError(ChatError):
    """The server answered with an error: `status`, and its `code` or ""."""

    def __init__(self, message: str, status: int, code: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class LostError(ChatError):
    """The answer was lost, or the stream broke off: nobody here knows what the server did."""


class UnreachableError(LostError):
    """No connection: the request was not sent."""


class Api:
    """The API at `url`. `key` is an API key. Raises ProxyError and ChatError."""

    def __init__(self, url: str, key: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._http = http_client(url, CONNECT_TIMEOUT_S)
        if key is not None:
            if not (key.isascii() and key.isprintable()):
                raise ChatError("the API key has characters that no header can have")
            self._http.headers["Authorization"] = f"Bearer {key}"

    def close(self) -> None:
        self._http.close()

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The JSON object that the server answers; an empty one for an empty answer."""
        timeout = httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        with self.errors():
            response = self._http.request(method, self.url + path, json=body, timeout=timeout)
            _check(response.status_code, response.content)
            return parse_event(response.text) if response.content else {}

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[Iterator[ServerSentEvent]]:
        """The events of the answer, of which there are none if that is empty.

        Errors of the block count as the server's, if they are of reading what is not our API.
        """
        timeout = httpx.Timeout(SILENCE_S, connect=CONNECT_TIMEOUT_S)
        asked = self._http.stream(
            method, self.url + path, json=body, headers=headers, timeout=timeout
        )
        with self.errors(), asked as response:
            if response.status_code not in (httpx.codes.OK, httpx.codes.NO_CONTENT):
                _check(response.status_code, response.read())
            yield _events(response)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turns errors of httpx, and of reading what is not our API, into ChatError."""
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            message = f"no server answers at {self.url}: is `moss serve` running?"
            raise UnreachableError(message) from error
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise ChatError(f"the connection to {self.url} failed: {error}") from error
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise LostError(f"the connection to {self.url} failed: {reason}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ChatError(f"{self.url} does not speak MOSS's API") from error


def _check(status: int, body: bytes) -> None:
    if not httpx.codes.is_success(status):
        raise RefusedError(error_message(status, body), status, error_code(body))


def _events(response: httpx.Response) -> Iterator[ServerSentEvent]:
    reader = EventStreamReader()
    for chunk in response.iter_bytes():
        yield from reader.feed(chunk)
