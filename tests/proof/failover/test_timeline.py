"""What counts as the pause of a stream."""

from tests.proof.failover.timeline import Timeline

UNDISTURBED = Timeline([0.0, 2.0, 2.5, 3.0])


def test_only_waits_after_the_kill_count() -> None:
    stream = Timeline([10.0, 12.0, 15.0, 15.5, 16.0])
    assert stream.longest_s == 3.0
    assert stream.pause_s(UNDISTURBED, at=14.0) == 3.0  # it is in the middle of this wait
    assert stream.pause_s(UNDISTURBED, at=15.2) == 0.5
    assert stream.pause_s(UNDISTURBED, at=17.0) == 0.0  # it had ended


def test_thoughts_that_nobody_is_told_are_no_pause() -> None:
    assert Timeline([10.0, 12.25, 12.5]).pause_s(UNDISTURBED, at=11.0) == 0.25
    assert Timeline([10.0, 15.0, 15.5]).pause_s(UNDISTURBED, at=11.0) == 3.0
