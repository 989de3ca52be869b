"""Keeps keys out of logs: whatever looks like one, wherever it stands."""

import re

_SECRETS = re.compile(
    r"""moss-[0-9a-zA-Z_]+\.[0-9a-zA-Z_-]+
    | moss-[0-9a-zA-Z]{20,}                       # an API key
    | (?i:\b(?:bearer|basic)\s+)[^\s'",;]+
    | (?i:\b(?:authorization|api[-_]?key|cookie)['"]?\s*[:=]\s*)['"]?[^'",;]+
    | (?i:\b(?:rediss?|unix)://)[^\s@/]*@         # user and password of a store
    """,
    re.VERBOSE,
)


def redact(text: str) -> str:
    """`text` without keys."""
    return _SECRETS.sub("[redacted]", text)
