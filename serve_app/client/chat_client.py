"""A chat with a running server, over its HTTP API alone. Remembers the uid, prints nothing."""

import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from moss_tp.errors import MossError

CONNECT_TIMEOUT_S = 5


class ChatError(MossError):
    """The server refused, failed or is not there; the message says which."""


class ChatClient:
    """One chat at `url`; `clear` starts another."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._uid: str | None = None
        # A reply may take as long as it likes; the server has its own deadline.
        self._http = httpx.Client(timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT_S))

    def clear(self) -> None:
        """Forgets the chat; the next `ask` begins a new one."""
        self._uid = None

    def close(self) -> None:
        self._http.close()

    def check(self) -> None:
        """Raises ChatError when no server of ours answers."""
        with self._told_plainly():
            response = self._http.get(f"{self._url.rstrip('/')}/livez", timeout=CONNECT_TIMEOUT_S)
        if response.status_code != httpx.codes.OK:
            raise ChatError(_refusal(response))

    def ask(self, prompt: str) -> Generator[str]:
        """Pieces of the reply as they come. Leaving early ends the generation. Raises ChatError.

        Only a reply that was told to its end is part of the chat.
        """
        body: dict[str, Any] = {"prompt": prompt, "stream": True}
        if self._uid is not None:
            body["uid"] = self._uid
        with (
            self._told_plainly(),
            self._http.stream("POST", self._url, json=body) as response,
        ):
            if response.status_code != httpx.codes.OK:
                raise ChatError(_refusal(response))
            for event in _events(response):
                if "error" in event:
                    raise ChatError(event["error"]["message"])
                if "delta" in event:
                    yield event["delta"]
                else:
                    self._uid = event["uid"]
                    return
            raise ChatError("the server broke off its reply")

    @contextmanager
    def _told_plainly(self) -> Iterator[None]:
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
    """The JSON values of a stream of server-sent events."""
    for line in response.iter_lines():
        if line.startswith("data:"):
            yield json.loads(line.removeprefix("data:"))


def _refusal(response: httpx.Response) -> str:
    """What an error response says, in whatever form it comes."""
    text = response.read().decode(errors="replace")
    try:
        message: str = json.loads(text)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return f"the server answered {response.status_code}: {text[:200]}"
    return message
