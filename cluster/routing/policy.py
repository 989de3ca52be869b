"""In which order replicas are tried for a request: pure functions, without Ray.

A key stays where its blocks are. New keys go by rendezvous hash, so that routers that know nothing
of each other agree, unless that gave a replica more than its share (consistent hashing with bounded
loads: Mirrokni, Thorup and Zadimoghaddam, 2018). The share is one of all sessions, and one of those
that this router has placed in the last seconds, of which others have not heard: if each router
keeps to it, so do all together. Whatever has no key goes where least is to do.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from cluster.routing.hashing import weight

MAX_SHARE = 1.25  # sessions of a replica, over the mean
MIN_PLACED = 4  # so many new sessions at a replica are not too many for one router
# A key leaves a replica that has so many times the requests of the one with the fewest, and some
# more: computing a chat's blocks anew is cheaper than waiting there.
MAX_TIMES, MAX_MORE = 2, 16


@dataclass(frozen=True)
class Candidate:
    """A replica: its full id, how many requests it has, how many sessions it served lately, how
    many new ones this router has just placed there, whether it has served the key, and what it says
    that makes its replies ("": nothing yet)."""

    replica: str
    load: int = 0
    sessions: int = 0
    placed: int = 0
    is_home: bool = False
    make_up: str = ""


def ranked(
    candidates: Sequence[Candidate],
    key: int,
    *,
    has_key: bool = True,
    avoid: Collection[str] = (),
    make_up: str = "",
) -> list[str]:
    """All replicas, best first. Without a key, `key` only decides between equals.

    Replicas of another than the given `make_up` come last, behind those to `avoid`.
    """
    groups: dict[tuple[bool, bool], list[Candidate]] = {}
    for candidate in candidates:
        is_other = bool(make_up and candidate.make_up and candidate.make_up != make_up)
        groups.setdefault((is_other, candidate.replica in avoid), []).append(candidate)
    order = _by_key if has_key else _by_load
    return [
        candidate.replica
        for group in sorted(groups)
        for candidate in order(groups[group], key, make_up)
    ]


def _by_load(group: Sequence[Candidate], key: int, make_up: str) -> list[Candidate]:
    def order(candidate: Candidate) -> tuple[bool, int, int]:
        is_unknown = candidate.make_up != make_up if make_up else False
        return is_unknown, candidate.load, -weight(key, candidate.replica)

    return sorted(group, key=order)


def _by_key(group: Sequence[Candidate], key: int, make_up: str) -> list[Candidate]:
    least = min(candidate.load for candidate in group)
    bound = session_bound([candidate.sessions for candidate in group])
    own_bound = max(MIN_PLACED, session_bound([candidate.placed for candidate in group]))
    is_new = not any(candidate.is_home for candidate in group)

    def order(candidate: Candidate) -> tuple[bool, int, int, int, int]:
        is_unknown = candidate.make_up != make_up if make_up else False
        own = -weight(key, candidate.replica)
        has_time = candidate.load <= MAX_TIMES * least + MAX_MORE
        if has_time and candidate.is_home:
            return is_unknown, 0, 0, 0, own
        has_share = candidate.sessions < bound and candidate.placed < own_bound
        if is_new and has_time and has_share:
            return is_unknown, 1, 0, 0, own
        if is_new:
            return is_unknown, 2, candidate.sessions, candidate.load, own
        return is_unknown, 2, candidate.load, candidate.sessions, own

    return sorted(group, key=order)


def session_bound(sessions: Sequence[int]) -> int:
    """How many sessions a replica may have at most, once one more has come. `sessions` holds how
    many each has."""
    return max(1, int(MAX_SHARE * (sum(sessions) + 1) / len(sessions)))
