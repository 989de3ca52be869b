"""The policy as a function: who gets a key, how evenly, and who keeps it when replicas change."""

from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.routing.hashing import hash_of
from cluster.routing.policy import MAX_MORE, MAX_SHARE, MIN_PLACED, Candidate, ranked, session_bound

NAMES = st.text("abcdefghij0123456789", min_size=8, max_size=8)
FLEETS = st.lists(NAMES, min_size=1, max_size=8, unique=True)
KEYS = st.integers(0, (1 << 64) - 1)
CANDIDATES = st.lists(
    st.builds(
        Candidate,
        replica=NAMES,
        load=st.integers(0, 50),
        sessions=st.integers(0, 50),
        placed=st.integers(0, 50),
        is_home=st.booleans(),
        make_up=st.sampled_from(("", "one", "two")),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda candidate: candidate.replica,
)


def fresh(replicas: list[str]) -> list[Candidate]:
    return [Candidate(replica) for replica in replicas]


@given(CANDIDATES, KEYS, st.booleans(), st.sampled_from(("", "one")))
def test_the_order_is_one_of_all_replicas_and_depends_on_nothing_else(
    candidates: list[Candidate], key: int, has_key: bool, make_up: str
) -> None:
    order = ranked(candidates, key, has_key=has_key, make_up=make_up)
    assert sorted(order) == sorted(each.replica for each in candidates)
    shuffled = sorted(candidates, key=lambda each: hash_of(each.replica + str(key)))
    assert ranked(shuffled, key, has_key=has_key, make_up=make_up) == order


@given(CANDIDATES, KEYS, st.booleans(), st.data())
def test_replicas_to_avoid_come_last(
    candidates: list[Candidate], key: int, has_key: bool, data: st.DataObject
) -> None:
    names = [each.replica for each in candidates]
    avoid = data.draw(st.sets(st.sampled_from(names)))
    order = ranked(candidates, key, has_key=has_key, avoid=avoid)
    assert set(order[len(order) - len(avoid) :]) == avoid


@given(CANDIDATES, KEYS, st.booleans())
def test_a_replica_of_another_make_up_is_chosen_only_if_there_is_no_other(
    candidates: list[Candidate], key: int, has_key: bool
) -> None:
    by_name = {each.replica: each.make_up for each in candidates}
    avoid = [each.replica for each in candidates if each.make_up == "one"]
    order = [
        by_name[name]
        for name in ranked(candidates, key, has_key=has_key, make_up="one", avoid=avoid)
    ]
    assert "two" not in order[: len(order) - order.count("two")]
    order = [by_name[name] for name in ranked(candidates, key, has_key=has_key, make_up="one")]
    if "one" in order:  # it is known to be right, which goes before one that has told nothing
        assert order[0] == "one"


@given(CANDIDATES, KEYS)
def test_without_a_key_the_least_loaded_is_first(candidates: list[Candidate], key: int) -> None:
    loads = {each.replica: each.load for each in candidates}
    assert loads[ranked(candidates, key, has_key=False)[0]] == min(loads.values())


def test_equals_share_requests_without_a_key() -> None:
    firsts = Counter(
        ranked(fresh(["a", "b", "c"]), hash_of(str(number)), has_key=False)[0]
        for number in range(3000)
    )
    assert all(850 < firsts[name] < 1150 for name in "abc"), firsts


@given(CANDIDATES, KEYS, st.data())
def test_a_key_stays_at_home_unless_there_is_much_more_to_do(
    candidates: list[Candidate], key: int, data: st.DataObject
) -> None:
    home = data.draw(st.integers(0, len(candidates) - 1))
    least = min(each.load for each in candidates)
    fleet = [replace(each, is_home=number == home) for number, each in enumerate(candidates)]
    calm, busy = least + MAX_MORE, 2 * least + MAX_MORE + 1
    fleet[home] = replace(fleet[home], load=calm, sessions=1000)
    assert ranked(fleet, key)[0] == fleet[home].replica
    fleet[home] = replace(fleet[home], load=busy)
    if len(fleet) > 1 and any(each.load == least for each in fleet):
        assert ranked(fleet, key)[0] != fleet[home].replica


@settings(max_examples=20, deadline=None)
@given(st.lists(NAMES, min_size=2, max_size=6, unique=True), NAMES, st.integers(0, 1 << 30))
def test_few_keys_move_when_a_replica_comes_or_goes(
    fleet: list[str], other: str, seed: int
) -> None:
    """For routers that remember nothing; those that do move none to it."""
    if other in fleet:
        return
    keys = [hash_of(f"{seed}-{number}") for number in range(2000)]
    before = [ranked(fresh(fleet), key)[0] for key in keys]
    after = [ranked(fresh([*fleet, other]), key)[0] for key in keys]
    moved = [now for then, now in zip(before, after, strict=True) if then != now]
    assert set(moved) <= {other}
    assert len(moved) / len(keys) <= 1 / (len(fleet) + 1) + 0.05


@given(FLEETS, st.integers(1, 200), st.integers(0, 1 << 30))
@settings(max_examples=50, deadline=None)
def test_no_replica_gets_more_than_its_share_of_new_sessions(
    fleet: list[str], num_sessions: int, seed: int
) -> None:
    sessions: Counter[str] = Counter()
    for number in range(num_sessions):
        candidates = [Candidate(name, sessions=sessions[name]) for name in fleet]
        sessions[ranked(candidates, hash_of(f"{seed}-{number}"))[0]] += 1
    mean = num_sessions / len(fleet)
    assert max(sessions.values()) <= max(MAX_SHARE * mean, mean + 1)


def test_a_router_that_has_placed_more_than_its_share_goes_elsewhere() -> None:
    """Although the replica has room in the view of all."""
    key = hash_of("new")
    first, second = ranked(fresh(["a", "b"]), key)
    full = Candidate(first, sessions=10, placed=MIN_PLACED)
    other = Candidate(second, sessions=10)
    assert ranked([full, other], key)[0] == second
    assert ranked([replace(full, placed=MIN_PLACED - 1), other], key)[0] == first


def test_the_bound_lets_one_session_in() -> None:
    assert session_bound([0, 0, 0]) == 1
    assert session_bound([21, 21, 21]) == 26
