"""An API key as data: whose it is and what it lets them do. Its secret is never kept."""

import re
import secrets
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import msgpack

from moss_tp.errors import ConfigError
from serve_app.access.principal import ANONYMOUS, Limits, Principal
from serve_app.api_secret import ENVIRONMENT, digest_of

PREFIX = "moss-"
_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_PAGES = "page-"  # how owners of cookies are called, which no key may be
_ENVIRONMENT_OWNER = "default"


@dataclass(frozen=True)
class ApiKey:
    """A key of `owner`, found by the `digest` of its secret.

    `models` and `plugins` are those that it may use, None: all. `created_ms` is since 1970.
    """

    id: str
    digest: str
    owner: str
    name: str = ""
    models: tuple[str, ...] | None = None
    plugins: tuple[str, ...] | None = None
    is_admin: bool = False
    limits: Limits = field(default_factory=Limits)
    created_ms: int = 0

    @property
    def principal(self) -> Principal:
        return Principal(
            self.owner,
            self.id,
            models=_set(self.models),
            plugins=_set(self.plugins),
            is_admin=self.is_admin,
            limits=self.limits,
        )


def make_key(
    owner: str,
    name: str = "",
    models: tuple[str, ...] | None = None,
    plugins: tuple[str, ...] | None = None,
    is_admin: bool = False,
    limits: Limits | None = None,
) -> tuple[ApiKey, str]:
    """A new key, and its secret of 256 random bits. Raises ConfigError for an unfit owner."""
    is_taken = owner == ANONYMOUS.owner or owner.startswith(_PAGES)
    if is_taken or not _OWNER.fullmatch(owner):
        raise ConfigError(
            f"{owner!r} cannot be an owner: up to 64 letters, digits, dots and dashes, and neither"
            f" {ANONYMOUS.owner!r} nor {_PAGES}…, whose chats are those of callers without keys"
        )
    secret = PREFIX + secrets.token_hex(32)
    created_ms = round(time.time() * 1000)
    key = ApiKey(
        secrets.token_hex(6),
        digest_of(secret),
        owner,
        name,
        models,
        plugins,
        is_admin,
        limits or Limits(),
        created_ms,
    )
    return key, secret


def environment_key(digest: str) -> ApiKey:
    """The key that the environment sets; another secret there is another key."""
    return ApiKey(f"env-{digest[:12]}", digest, _ENVIRONMENT_OWNER, ENVIRONMENT, is_admin=True)


def pack_key(key: ApiKey) -> bytes:
    packed: bytes = msgpack.packb(asdict(key))
    return packed


def unpack_key(packed: bytes) -> ApiKey:
    fields: dict[str, Any] = msgpack.unpackb(packed, use_list=False)
    return ApiKey(**{**fields, "limits": Limits(**fields["limits"])})


def _set(names: tuple[str, ...] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)
