"""How clients read what all of the API has: data of events as JSON, and the bodies of errors.

It opens no connection: `api` and the benchmarks' `load.sse_client` do that.
"""

import json
from typing import Any

MAX_BODY_CHARS = 200  # of an error response that is not ours, such as a proxy's page


def error_message(status: int, body: bytes) -> str:
    """The message of an error response; the status and the start of the body if it has none."""
    text = body.decode(errors="replace")
    try:
        message: str = json.loads(text)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return f"the server answered {status}: {text[:MAX_BODY_CHARS]}"
    return message


def error_code(body: bytes) -> str:
    """The code of an error response, which tells errors of one status apart; "" for none."""
    try:
        code = json.loads(body.decode(errors="replace"))["error"]["code"]
    except (ValueError, KeyError, TypeError):
        return ""
    return str(code or "")


def parse_event(data: str) -> dict[str, Any]:
    """The data of one event. Raises ValueError if it is no JSON object."""
    event = json.loads(data)
    if not isinstance(event, dict):
        raise ValueError(f"not an event of the API: {data[:MAX_BODY_CHARS]}")
    return event
