"""How clients read the demo API: the events of a streamed reply and the bodies of error responses.

It opens no connection: `chat_client` and the benchmarks' `load.sse_client` do that.
"""

import json
from typing import Any

from serve_app.client.sse import EventStreamReader

MAX_BODY_CHARS = 200  # of an error response that is not ours, such as a proxy's page


class ReplyEvents:
    """Reads one streamed reply: bytes as they arrive to JSON objects."""

    def __init__(self) -> None:
        self._reader = EventStreamReader()

    def feed(self, chunk: bytes) -> list[dict[str, Any]]:
        """The events that `chunk` completes. Raises ValueError for data that is no JSON object."""
        return [parse_event(event.data) for event in self._reader.feed(chunk)]


def error_message(status: int, body: bytes) -> str:
    """The message of an error response; the status and the start of the body if it has none."""
    text = body.decode(errors="replace")
    try:
        message: str = json.loads(text)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return f"the server answered {status}: {text[:MAX_BODY_CHARS]}"
    return message


def parse_event(data: str) -> dict[str, Any]:
    """The data of one event. Raises ValueError if it is no JSON object."""
    event = json.loads(data)
    if not isinstance(event, dict):
        raise ValueError(f"not an event of the API: {data[:MAX_BODY_CHARS]}")
    return event
