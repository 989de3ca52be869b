"""The tree of a session's turns: each knows its parent, and one path through them is active."""

from collections.abc import Sequence

from serve_app.sessions.session import Turn


def path_to(tree: Sequence[Turn], turn_id: str) -> tuple[Turn, ...]:
    """The turns from a first one to `turn_id`; none for "". Raises KeyError for another id."""
    by_id = {turn.id: turn for turn in tree}
    path: list[Turn] = []
    while turn_id:
        turn = by_id.pop(turn_id)  # a cycle is a KeyError, too
        path.append(turn)
        turn_id = turn.parent
    return tuple(reversed(path))
