"""What makes a Redis or Valkey server lose what it has acknowledged."""

from collections.abc import Iterator, Mapping
from typing import Any


def faults_of(memory: Mapping[str, Any], persistence: Mapping[str, Any]) -> Iterator[str]:
    """What makes a server lose chats, by its own INFO, and what to change."""
    if (policy := memory.get("maxmemory_policy", "noeviction")) != "noeviction":
        yield (
            f"the store evicts ({policy}), which would lose chats:"
            " set its maxmemory-policy to noeviction"
        )
    if not persistence.get("aof_enabled"):
        yield (
            "the store keeps no append-only file, so its crash may lose turns:"
            " set its appendonly to yes and appendfsync to always"
        )
