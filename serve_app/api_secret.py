"""Secrets as digests: what the server keeps of an API key, and how one comes in by environment."""

import hashlib
import re
from collections.abc import MutableMapping

from moss_tp.errors import ConfigError

ENVIRONMENT = "MOSS_API_KEY"
_FIT = re.compile(r"[!-~]{8,255}")


def digest_of(secret: str) -> str:
    """SHA-256 in hex. What has 256 random bits needs neither salt nor stretching."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def take_environment_key(environment: MutableMapping[str, str]) -> str | None:
    """The digest of the key in `environment`, if any, from which it is removed: no process that is
    started later inherits it. Raises ConfigError, which does not quote it, for a weak one."""
    secret = environment.pop(ENVIRONMENT, None)
    if secret is None:
        return None
    if not _FIT.fullmatch(secret):
        raise ConfigError(f"{ENVIRONMENT} must be 8 to 255 visible ASCII characters")
    return digest_of(secret)
