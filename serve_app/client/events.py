"""How clients read the demo API: server-sent events and the bodies of error responses.

It opens no connection: `chat_client` and the benchmarks' `load.sse_client` do that.
"""

import json
from typing import Any

MAX_BODY_CHARS = 200  # of an error response that is not ours, such as a proxy's page


def parse_event(line: str) -> dict[str, Any] | None:
    """The JSON object of a `data:` line; None for comments (pings) and blank lines.

    Raises ValueError when the data is not JSON.
    """
    if not line.startswith("data:"):
        return None
    event: dict[str, Any] = json.loads(line.removeprefix("data:"))
    return event


def error_message(status: int, body: bytes) -> str:
    """The message of an error response; the status and the start of the body if it has none."""
    text = body.decode(errors="replace")
    try:
        message: str = json.loads(text)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return f"the server answered {status}: {text[:MAX_BODY_CHARS]}"
    return message
