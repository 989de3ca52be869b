"""Turns and leases for tests of what is stored."""

from serve_app.sessions.session import Turn, new_token
from serve_app.sessions.store import Lease, SessionStore


def a_turn(key: str = "", reply: str = "ok", parent: str = "", user: str = "hi") -> Turn:
    key = key or new_token()
    return Turn(user, "None", "None", "\nNone\n", reply, key, id=new_token(), parent=parent)


def a_lease(uid: str = "", owner: str = "ann", key: str = "") -> Lease:
    return Lease(uid or new_token(), owner, key or new_token(), new_token())


async def append(
    store: SessionStore,
    uid: str,
    parent: str = "",
    owner: str = "ann",
    reply: str = "ok",
    user: str = "hi",
) -> Turn:
    """The stored turn, which is the active one now."""
    lease = a_lease(uid, owner)
    session = await store.load(uid, owner)
    num_turns = len(session.tree) if session else 0
    return await store.commit(lease, num_turns, a_turn(lease.key, reply, parent, user))
