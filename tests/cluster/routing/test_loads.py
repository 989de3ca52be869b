from cluster.routing.loads import FRESH_S, Loads
from tests.cluster.routing.test_residency import Clock


def test_own_requests_count_until_they_have_ended() -> None:
    loads = Loads()
    for _ in range(3):
        loads.sent("a")
    loads.ended("a")
    assert (loads.of("a"), loads.of("b")) == (2, 0)
    loads.ended("b")  # of a replica that was lost since
    assert loads.of("b") == 0


def test_those_of_others_count_while_they_may_last() -> None:
    clock = Clock()
    loads = Loads(clock)
    loads.sent("a")
    loads.told("a", 5)
    loads.ended("a")
    assert loads.of("a") == 4
    clock.now += FRESH_S
    assert loads.of("a") == 0


def test_own_requests_that_are_on_their_way_make_no_fewer_of_others() -> None:
    loads = Loads()
    loads.sent("a")
    loads.sent("a")
    loads.told("a", 1)
    assert loads.of("a") == 2


def test_replicas_that_are_gone_are_forgotten() -> None:
    loads = Loads()
    loads.sent("a")
    loads.told("b", 3)
    loads.keep(["c"])
    assert (loads.of("a"), loads.of("b")) == (0, 0)
