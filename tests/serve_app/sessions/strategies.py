"""Few chats, owners, keys and tokens, so that random steps on them collide."""

from dataclasses import replace

from hypothesis import strategies as st

from serve_app.sessions.catalogue import SessionChanges
from serve_app.sessions.session import Feedback, Session
from serve_app.sessions.tree import path_to

CHATS = st.integers(0, 3)
OWNERS, KEYS, TOKENS = st.sampled_from(["ann", "bob"]), st.sampled_from("abcd"), st.integers(0, 3)
LEASES = st.lists(st.tuples(CHATS, KEYS, TOKENS), max_size=3)
CHANGES = st.builds(
    SessionChanges,
    title=st.none() | st.text("ab嗨\0", max_size=3),
    plugins=st.none() | st.sets(st.sampled_from(["calculator", "search"])).map(tuple),
    defaults=st.none() | st.dictionaries(st.just("top_p"), st.floats(0.1, 1)),
)
FEEDBACK = st.builds(Feedback, liked=st.none() | st.booleans(), comment=st.text(max_size=2))


def changed(session: Session, changes: SessionChanges) -> Session:
    """`session` after the changes."""
    if changes.title is not None:
        session = replace(session, title=changes.title)
    if changes.any_plugins or changes.plugins is not None:
        session = replace(session, plugins=changes.plugins)
    if changes.defaults is not None:
        session = replace(session, defaults=changes.defaults)
    if changes.active is not None:
        session = replace(session, turns=path_to(session.tree, changes.active))
    return session
