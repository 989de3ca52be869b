from cluster.routing import residency
from cluster.routing.hashing import hash_of
from cluster.routing.residency import CONFIRMED_S, RECENT_S, Residency, ServedKeys


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_routers_learn_what_a_replica_has_served() -> None:
    served, known = ServedKeys("digest"), Residency()
    for key in ("one", "two", "one", ""):
        served.note(key)
    known.update("a", served.stats())
    assert known.has_served(hash_of("one"), "a")
    assert not known.has_served(hash_of("three"), "a")
    assert not known.has_served(hash_of("one"), "b")
    assert known.sessions("a") == 2
    assert (known.make_up("a"), known.make_up("b")) == ("digest", "")


def test_stats_are_equal_while_the_same_sessions_go_on() -> None:
    served = ServedKeys()
    for key in ("one", "two"):
        served.note(key)
    before = served.stats()
    served.note("one")
    assert served.stats() == before
    served.note("three")
    assert served.stats() != before


def test_an_old_session_is_known_and_is_no_load() -> None:
    clock = Clock()
    served, known = ServedKeys(clock=clock), Residency()
    served.note("one")
    clock.now += RECENT_S + 1
    served.note("two")
    known.update("a", served.stats())
    assert known.sessions("a") == 1
    assert known.has_served(hash_of("one"), "a")


def test_a_session_counts_once_before_its_replica_tells_of_it_and_after() -> None:
    served, known = ServedKeys(), Residency()
    known.note(hash_of("one"), "a")
    known.note(hash_of("one"), "a")
    assert known.sessions("a") == 1
    assert known.has_served(hash_of("one"), "a")
    served.note("one")
    known.update("a", served.stats())
    assert known.sessions("a") == 1


def test_a_new_session_counts_as_placed_by_its_first_router_for_some_seconds() -> None:
    clock = Clock()
    served, known = ServedKeys(), Residency(clock)
    served.note("another router's")
    known.update("b", served.stats())
    for key in ("one", "two", "one", "another router's"):
        known.note(hash_of(key), "a")
    assert (known.placed("a"), known.placed("b")) == (2, 0)
    clock.now += CONFIRMED_S - 1
    known.note(hash_of("three"), "a")
    assert known.placed("a") == 3
    clock.now += 2
    assert known.placed("a") == 1


def test_a_session_that_its_replica_never_tells_of_counts_for_some_seconds() -> None:
    clock = Clock()
    known = Residency(clock)
    known.note(hash_of("refused"), "a")
    clock.now += CONFIRMED_S - 1
    known.update("a", {})
    assert known.sessions("a") == 1
    clock.now += 2
    known.update("a", {})
    assert known.sessions("a") == 0


def test_what_a_replica_that_is_gone_has_told_is_forgotten() -> None:
    served, known = ServedKeys(), Residency()
    served.note("one")
    known.update("a", served.stats())
    known.note(hash_of("two"), "b")
    known.keep(["b"])
    assert not known.has_served(hash_of("one"), "a")
    assert (known.sessions("a"), known.sessions("b")) == (0, 1)


def test_both_sides_are_bounded() -> None:
    served, known = ServedKeys(), Residency()
    for number in range(residency.MAX_SERVED + 1):
        served.note(str(number))
    known.update("a", served.stats())
    assert not known.has_served(hash_of("0"), "a")
    assert known.has_served(hash_of("1"), "a")
    for number in range(residency.MAX_ROUTED + 1):
        known.note(number, "b")
    assert not known.has_served(0, "b")
    assert known.has_served(1, "b")
    assert known.sessions("b") <= residency.MAX_ROUTED
