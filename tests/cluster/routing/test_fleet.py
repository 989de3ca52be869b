"""Our router in a real Serve: three replicas, and two processes that ask them."""

import time
from collections import Counter
from collections.abc import Iterator
from itertools import count, pairwise
from typing import Any

import pytest
from ray import serve

from cluster.launch.local_ray import local_ray
from cluster.routing.loads import FRESH_S
from cluster.routing.policy import MAX_SHARE
from cluster.routing.route import Route
from tests.cluster.routing.fleet import APP, ASKERS, fleet_app, kill
from tests.support.waiting import wait_until

NUM_REPLICAS, NUM_SESSIONS, NUM_TURNS = 3, 64, 20
AT_ONCE = 6  # more would be work that a new replica takes over
PAUSE_S = 0.4  # people take longer to read a reply


class Fleet:
    """The askers, as the test calls them."""

    def __init__(self) -> None:
        self._askers = [serve.get_deployment_handle(name, APP) for name in ASKERS]

    def call(self, number: int, method: str, *args: Any) -> Any:
        handle: Any = self._askers[number]
        return getattr(handle, method).remote(*args).result(timeout_s=60)

    def round(self, number: int, keys: list[str]) -> list[str]:
        """One turn of each key, half of them by either asker, which take turns."""
        halves: list[list[tuple[str, Route]]] = [[], []]
        for place, key in enumerate(keys):
            halves[(place + number) % 2].append((f"{key}-{number}", Route(key)))
        handles: list[Any] = self._askers
        running = [
            handle.ask.remote(half, 0.0, AT_ONCE)
            for handle, half in zip(handles, halves, strict=True)
        ]
        answers = [iter(each.result(timeout_s=60)) for each in running]
        return [next(answers[(place + number) % 2]) for place in range(len(keys))]


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with local_ray(num_cpus=4):
        serve.run(fleet_app(NUM_REPLICAS), name=APP, route_prefix=None)
        yield Fleet()
        serve.shutdown()  # type: ignore[no-untyped-call]


def landed(rounds: list[list[str]]) -> float:
    """The share of turns, but the first, where the turn before was."""
    pairs = [
        then == now
        for earlier, later in pairwise(rounds)
        for then, now in zip(earlier, later, strict=True)
    ]
    return sum(pairs) / len(pairs)


def settled(fleet: Fleet, keys: list[str], numbers: Iterator[int]) -> list[str]:
    """Where the keys are, once both askers have heard of all."""
    before: list[str] = []
    for _ in range(20):
        after = fleet.round(next(numbers), keys)
        if after == before:
            return after
        before = after
        time.sleep(PAUSE_S)
    raise AssertionError("the askers do not agree")


def test_turns_land_where_the_chat_is_whoever_asks(fleet: Fleet) -> None:
    keys = [f"chat {number}" for number in range(NUM_SESSIONS)]
    before = [fleet.call(number, "hits") for number in range(2)]
    rounds = []
    for number in range(NUM_TURNS):
        rounds.append(fleet.round(number, keys))
        time.sleep(PAUSE_S)
    share = landed(rounds)
    last = Counter(rounds[-1])
    print(f"{share:.1%} landed; sessions {sorted(last.values())}")
    assert share >= 0.95
    assert len(last) == NUM_REPLICAS
    assert max(last.values()) <= MAX_SHARE * NUM_SESSIONS / NUM_REPLICAS
    after = [fleet.call(number, "hits") for number in range(2)]
    turns = sum(now.turns - then.turns for then, now in zip(before, after, strict=True))
    hits = sum(now.hits - then.hits for then, now in zip(before, after, strict=True))
    assert turns == NUM_SESSIONS * NUM_TURNS
    # A router that has not heard of a chat yet counts no hit, wherever it lands.
    assert hits / (turns - NUM_SESSIONS) >= 0.9


def test_whoever_sent_a_request_can_say_where_it_went(fleet: Fleet) -> None:
    turns = [(f"told {number}", Route(f"told {number}")) for number in range(6)]
    replicas = fleet.call(0, "ask", turns)
    ids = [request_id for request_id, _ in turns]
    assert fleet.call(0, "assigned", ids) == replicas
    assert fleet.call(1, "assigned", ids) == [None] * 6


def test_a_burst_of_one_key_does_not_stall(fleet: Fleet) -> None:
    began = time.monotonic()
    replicas = fleet.call(0, "ask", [(f"burst {n}", Route("burst")) for n in range(200)], 0.2)
    assert len(replicas) == 200
    assert time.monotonic() - began < 5
    # More than it has time for is shared.
    assert len(set(replicas)) == NUM_REPLICAS


def test_requests_without_a_key_go_where_least_is_to_do(fleet: Fleet) -> None:
    time.sleep(FRESH_S)  # until nobody counts what was there before
    # Each ends after the last one was sent, or a replica that the machine lets wait gets fewer.
    answers = Counter(fleet.call(0, "ask_held", [(f"any {n}", Route()) for n in range(60)]))
    assert len(answers) == NUM_REPLICAS
    assert max(answers.values()) - min(answers.values()) <= 1, answers


def test_a_replica_to_avoid_is_avoided(fleet: Fleet) -> None:
    (home,) = fleet.call(0, "ask", [("first", Route("avoided"))])
    turns = [(f"avoid {number}", Route("avoided", avoid=(home,))) for number in range(10)]
    assert home not in fleet.call(0, "ask", turns)
    # It is silent for others, too.
    others = [(f"other {number}", Route(f"other {number}")) for number in range(10)]
    assert home not in fleet.call(0, "ask", others)


def test_sessions_of_survivors_stay_when_a_replica_dies(fleet: Fleet) -> None:
    keys = [f"long chat {number}" for number in range(NUM_SESSIONS)]
    numbers = count()
    before = settled(fleet, keys, numbers)
    pids = fleet.call(0, "pids")
    assert len(pids) == NUM_REPLICAS
    victim = before[0]
    kill(pids[victim])
    began = time.monotonic()
    after = fleet.round(next(numbers), keys)
    took_s = time.monotonic() - began
    moved = [now for then, now in zip(before, after, strict=True) if then != now]
    print(f"{len(moved)} of {NUM_SESSIONS} moved; the round took {took_s:.2f} s")
    assert victim not in after
    assert len(moved) == before.count(victim)  # all others stay
    assert took_s < 3
    assert wait_until(lambda: len(fleet.call(0, "pids")) == NUM_REPLICAS, 30)
    after = settled(fleet, keys, numbers)
    moved = [now for then, now in zip(before, after, strict=True) if then not in (now, victim)]
    assert not moved  # to the new one, or for any other reason
