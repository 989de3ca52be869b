"""A chat with a running server over its HTTP API. It keeps the uid and prints nothing."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from moss_tp.errors import MossError
from serve_app.client.connect import http_client
from serve_app.client.events import ReplyEvents, error_message

CONNECT_TIMEOUT_S = 5


class ChatError(MossError):
    """The server is unreachable, refused the request or failed; the message says which."""


class ChatClient:
    """One chat at `url`; `clear` starts a new one. `key` is an API key. Raises ProxyError
    and ChatError."""

    def __init__(self, url: str, key: str | None = None) -> None:
        self._url = url
        self._uid: str | None = None
        self._http = http_client(url, CONNECT_TIMEOUT_S)
        if key is not None:
            if not (key.isascii() and key.isprintable()):
                raise ChatError("the API key has characters that no header can have")
            self._http.headers["Authorization"] = f"Bearer {key}"

    def clear(self) -> None:
        """Drops the uid, so that the next `ask` starts a new chat."""
        self._uid = None

    def close(self) -> None:
        self._http.close()

    def check(self) -> None:
        """Raises ChatError unless a MOSS server answers at `url`."""
        with self._chat_errors():
            response = self._http.get(f"{self._url.rstrip('/')}/livez", timeout=CONNECT_TIMEOUT_S)
        if response.status_code != httpx.codes.OK:
            raise ChatError(error_message(response.status_code, response.content))

    def ask(self, prompt: str) -> Generator[str]:
        """Yields the reply piece by piece. Raises ChatError, after which the chat can go on.

        Closing the generator aborts the reply; only a complete reply becomes part of the chat.
        """
        body: dict[str, Any] = {"prompt": _checked(prompt), "stream": True}
        if self._uid is not None:
            body["uid"] = self._uid
        with self._chat_errors(), self._http.stream("POST", self._url, json=body) as response:
            if response.status_code != httpx.codes.OK:
                raise ChatError(error_message(response.status_code, response.read()))
            for event in _events(response):
                if "error" in event:
                    raise ChatError(event["error"]["message"])
                if "delta" not in event:
                    self._uid = event["uid"]
                    return
                yield event["delta"]
            raise ChatError("the connection closed before the reply was complete")

    @contextmanager
    def _chat_errors(self) -> Iterator[None]:
        """Turns errors of httpx, and of reading what is not our API, into ChatError."""
        try:
            yield
        except httpx.ConnectError as error:
            raise ChatError(
                f"no server answers at {self._url}: is `moss serve` running?"
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ChatError(f"the connection to {self._url} failed: {error}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ChatError(f"{self._url} does not speak MOSS's API") from error


def _events(response: httpx.Response) -> Iterator[dict[str, Any]]:
    events = ReplyEvents()
    for chunk in response.iter_bytes():
        yield from events.feed(chunk)


def _checked(prompt: str) -> str:
    """`prompt`, if it can be sent. Bytes in another encoding reach Python as lone surrogates."""
    if any("\ud800" <= character <= "\udfff" for character in prompt):
        raise ChatError("not sent: the text is not in the encoding of this terminal")
    return prompt
