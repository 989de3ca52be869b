"""What the next replica is asked for, and when there is none."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.channel.wire import Peer
from cluster.routing.route import Route
from moss_tp.engine.outputs import TokenDelta
from moss_tp.engine.request import EngineRequest
from moss_tp.errors import EngineDeadError
from moss_tp.sampling.row import SampledToken
from moss_tp.sampling_params import SamplingParams
from serve_app.remote.attempt import ReplicaLostError
from serve_app.remote.told import MAX_SENDS, Told

REQUEST = EngineRequest("r", (1, 2), SamplingParams(seed=7), "ann", output_ids=(5, 6))
SCORES = (SampledToken(2, -1.0),)


def delta(*ids: int, cached: int = 0, num_told: int = 2) -> TokenDelta:
    return TokenDelta(ids, "x", None, 2, cached, num_told_tokens=num_told)


def lost(
    name: str, make_up: str = "m", was_taken: bool = True, has_begun: bool = True
) -> ReplicaLostError:
    peer = Peer(name, make_up) if was_taken else None
    return ReplicaLostError("gone", peer, name, was_taken and has_begun)


def test_the_first_replica_gets_the_request_as_it_is() -> None:
    told = Told(REQUEST, "uid")
    assert told.request is REQUEST
    assert told.route == Route("uid")


@given(st.lists(st.lists(st.integers(0, 9), max_size=4).map(tuple), max_size=6))
def test_the_next_one_goes_on_behind_what_was_told(deltas: list[tuple[int, ...]]) -> None:
    told = Told(REQUEST, "uid")
    for ids in deltas:
        assert told.add(delta(*ids)) == delta(*ids)
    told.lose(lost("one"))
    every = (5, 6, *(i for ids in deltas for i in ids))
    again = replace(REQUEST, request_id="r~2", output_ids=every, is_continuation=True)
    assert told.request == again
    assert told.route.age_s is not None
    assert told.route.avoid == ("one",)
    assert told.route.make_up == ("m" if any(deltas) else ""), "nothing told: any may begin"


def test_its_reader_sees_one_reply() -> None:
    told = Told(REQUEST, "")
    told.add(delta(1, cached=64))
    told.lose(lost("one"))
    assert told.add(delta(2, cached=0, num_told=3)) == delta(2, cached=64)


def test_a_prompt_is_scored_once() -> None:
    request = replace(REQUEST, params=SamplingParams(prompt_logprobs=1))
    told = Told(request, "")
    told.lose(lost("one"))
    assert told.request.params.prompt_logprobs == 1, "nothing of it has come"
    told = Told(request, "")
    told.add(delta(1)._replace(prompt_logprobs=SCORES))
    told.lose(lost("one"))
    assert told.request.params.prompt_logprobs is None


def test_the_deadline_in_the_queue_keeps_running() -> None:
    told = Told(replace(REQUEST, deadline_s=30.0), "")
    told.lose(lost("one"))
    assert told.request.deadline_s is not None and told.request.deadline_s < 30
    told = Told(replace(REQUEST, deadline_s=0.0), "")
    told.lose(lost("one"))
    assert told.request.deadline_s == 0


def test_no_third_group_gets_what_was_given_to_two_and_no_more_was_heard() -> None:
    told = Told(REQUEST, "")
    told.add(delta(1))
    told.lose(lost("one"))
    told.add(delta())  # without a token
    with pytest.raises(EngineDeadError, match="2 groups"):
        told.lose(lost("two"))


def test_one_that_went_on_in_between_or_had_not_begun_may_go_on_again() -> None:
    told = Told(REQUEST, "")
    told.lose(lost("one"))
    told.add(delta(1))
    told.lose(lost("two"))
    told.lose(lost("three", has_begun=False))
    assert told.request.request_id == "r~4"
    with pytest.raises(EngineDeadError, match="4 groups"):
        told.lose(lost("four", has_begun=False))


def test_a_group_that_had_not_taken_it_does_not_count() -> None:
    told = Told(REQUEST, "")
    pauses = [told.lose(lost(str(i), was_taken=False)) for i in range(MAX_SENDS - 1)]
    assert pauses == sorted(pauses) and sum(pauses) < 3
    assert told.route == Route("", tuple(map(str, range(MAX_SENDS - 1)))), "nor is it a suspect"
    assert not told.request.is_continuation
    with pytest.raises(EngineDeadError, match="gone"):
        told.lose(lost("x", was_taken=False))
