"""Who makes a request, and what that caller may do."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Limits:
    """Of one key; None is no limit. Tokens are those of prompts and replies."""

    requests_per_s: float | None = None
    tokens_per_min: int | None = None
    running_turns: int | None = None


@dataclass(frozen=True)
class Principal:
    """A caller. Sessions belong to `owner`; several keys may have the same one.

    `key_id` is empty without a key. `models` and `plugins` are those that it may use, None: all.
    Only sessions of a caller that `is_listed` are found without their uid.
    """

    owner: str
    key_id: str = ""
    models: frozenset[str] | None = None
    plugins: frozenset[str] | None = None
    is_admin: bool = False
    is_listed: bool = True
    limits: Limits = field(default_factory=Limits)


# All callers of a server without keys who have no cookie: only uids separate their chats.
ANONYMOUS = Principal("demo", is_listed=False, is_admin=True)
# Whoever calls an endpoint that needs no key.
NOBODY = Principal("", is_listed=False)
