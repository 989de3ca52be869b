"""Whether requests reach the model, once all deployments are up: a token tells it."""

import time
from collections.abc import Callable
from typing import Any

TOKEN_S = 6.0  # and as long as one more question takes


def has_token_come(ingress: Any, check_stop: Callable[[], None]) -> bool:
    """Waits for it for some seconds. `ingress` is the DeploymentHandle of the application.

    Raises whatever `check_stop` raises.
    """
    until = time.monotonic() + TOKEN_S
    while not _has_served(ingress):
        check_stop()
        if time.monotonic() > until:
            return False
    return True


def _has_served(ingress: Any) -> bool:
    try:
        return bool(ingress.has_served.remote().result(timeout_s=TOKEN_S))
    except TimeoutError:
        return False
